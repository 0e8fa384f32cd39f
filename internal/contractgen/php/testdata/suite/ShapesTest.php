<?php

declare(strict_types=1);

use OpenAgents\Runtime\Canon;
use OpenAgents\Runtime\Event\Events;
use OpenAgents\Runtime\Event\RunAcceptedV1;
use OpenAgents\Runtime\Event\UnknownEvent;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\CancelRunRequest;
use OpenAgents\Runtime\Model\ReasonClass;
use OpenAgents\Runtime\Model\RunEvent;
use OpenAgents\Runtime\Model\RunStatus;
use OpenAgents\Runtime\Model\RunSummary;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Model\ToolPolicy;
use OpenAgents\Runtime\Wire;
use PHPUnit\Framework\TestCase;

final class ShapesTest extends TestCase
{
    /** Every example of the contract, written out by the Go test: class and JSON. */
    public function examples(): iterable
    {
        foreach (json_decode((string) file_get_contents(getenv('EXAMPLES')), true, 512, JSON_THROW_ON_ERROR) as $e) {
            yield $e['name'] => [$e['class'], $e['json']];
        }
    }

    /** @dataProvider examples */
    public function testAnExampleComesBackAsItWas(string $class, string $json): void
    {
        $object = $class::fromArray(Wire::decode($json));
        $this->assertSame(Canon::json($json), Canon::encode($object));
        $this->assertEquals($object, $class::fromArray($object->toArray()));
        $this->assertSame(Canon::json($json), Canon::json(Wire::encode($object->toArray())));
        // As Laravel would decode it, with arrays throughout.
        $this->assertInstanceOf($class, $class::fromArray(json_decode($json, true)));
    }

    public function testAnUnknownValueOfAGrowingEnumStays(): void
    {
        $run = RunSummary::fromArray(self::summary(['reasonClass' => 'eaten_by_bear']));
        $this->assertSame('eaten_by_bear', $run->reasonClass);
        $this->assertSame('eaten_by_bear', $run->toArray()['reasonClass']);
        $this->assertSame(ReasonClass::ModelFailed, RunSummary::fromArray(self::summary(['reasonClass' => 'model_failed']))->reasonClass);
    }

    public function testAnUnknownValueOfAClosedEnumIsAnError(): void
    {
        $this->expectExceptionMessage('RunSummary.status: "asleep" is not a value of ' . RunStatus::class);
        $this->expectException(UnexpectedValueException::class);
        RunSummary::fromArray(self::summary(['status' => 'asleep']));
    }

    /** @dataProvider wrong */
    public function testAWrongMemberIsNamed(array $change, string $message): void
    {
        $this->expectException(UnexpectedValueException::class);
        $this->expectExceptionMessage($message);
        RunSummary::fromArray(self::summary($change));
    }

    public function wrong(): iterable
    {
        yield 'missing' => [['runId' => null], 'RunSummary.runId: must be a string, not null'];
        yield 'a number for a string' => [['threadId' => 7], 'RunSummary.threadId: must be a string, not int'];
        yield 'a string for a number' => [['userId' => '7'], 'RunSummary.userId: must be an integer, not string'];
        yield 'a fraction' => [['userId' => 7.5], 'RunSummary.userId: must be an integer, not float'];
        yield 'a number for a truth' => [['keepOpen' => 1], 'RunSummary.keepOpen: must be true or false, not int'];
    }

    public function testUnknownMembersAreIgnored(): void
    {
        $this->assertSame('r1', RunSummary::fromArray(self::summary(['newer' => [1, 2]]))->runId);
    }

    public function testEmptyObjectsAreNeverLists(): void
    {
        $this->assertSame('{}', json_encode(new CancelRunRequest()));
        $this->assertSame('{}', Wire::encode((new CancelRunRequest())->toArray()));
        $frame = new AppendFrameRequest(frameId: 'f', type: 'tick', payload: []);
        $this->assertSame('{"frameId":"f","type":"tick","payload":{}}', Wire::encode($frame->toArray()));
        $frame = new AppendFrameRequest(frameId: 'f', type: 'tick', payload: ['0' => 'a']);
        $this->assertSame('{"frameId":"f","type":"tick","payload":{"0":"a"}}', Wire::encode($frame->toArray()));
        $run = new StartRunRequest(runId: 'r', threadId: 't', authenticatedSession: true, toolPolicy: new ToolPolicy());
        $this->assertSame('{"runId":"r","threadId":"t","authenticatedSession":true,"toolPolicy":{}}', Wire::encode($run->toArray()));
        $this->assertSame('{"allow":[]}', json_encode(new ToolPolicy(allow: [])));
    }

    public function testFreeFormObjectsKeepWhatTheyWere(): void
    {
        $json = '{"frameId":"f","payload":{"a":{},"b":[],"c":{"0":1},"d":[{}],"e":1.0,"f":null,"g":"ü/"},"type":"tick"}';
        $frame = AppendFrameRequest::fromArray(Wire::decode($json));
        $this->assertSame(Canon::json($json), Canon::json(Wire::encode($frame->toArray())));
        $this->assertNull($frame->payload['f']);
        $this->assertSame('ü/', $frame->payload['g']);
    }

    public function testEventsHaveTheirTypes(): void
    {
        $this->assertGreaterThan(20, \count(Events::classes()));
        foreach (Events::classes() as $class) {
            $this->assertMatchesRegularExpression('/^[a-z_]+\.[a-z_]+$/', $class::TYPE);
        }
        $event = Events::of(self::event('run.started', 1, ['message_id' => 'm']));
        $this->assertSame('m', $event->messageId);
        $this->assertSame(['run.started', 1], [$event->eventType(), $event->eventVersion()]);
        $this->assertSame('run.accepted', RunAcceptedV1::TYPE);
    }

    public function testANewerEventIsUnknownNotAnError(): void
    {
        foreach ([['run.started', 2], ['run.sang', 1]] as [$type, $version]) {
            $event = Events::of(self::event($type, $version, ['tune' => 'x']));
            $this->assertInstanceOf(UnknownEvent::class, $event);
            $this->assertSame([$type, $version, ['tune' => 'x']], [$event->eventType(), $event->eventVersion(), $event->toArray()]);
        }
    }

    private static function event(string $type, int $version, array $payload): RunEvent
    {
        return new RunEvent(
            seq: 1, eventType: $type, eventVersion: $version, payload: $payload,
            contentHash: 'c', prevHash: 'p', eventHash: 'e', insertedAt: '2026-02-18T10:00:00Z',
        );
    }

    private static function summary(array $change): array
    {
        return array_merge([
            'runId' => 'r1', 'threadId' => 't1', 'userId' => 7, 'status' => 'running', 'keepOpen' => false,
            'acceptedAt' => '2026-02-18T10:00:00.000000Z',
        ], $change);
    }
}
