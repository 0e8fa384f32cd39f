<?php

declare(strict_types=1);

use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\Exception\RunNotFoundException;
use OpenAgents\Runtime\Exception\StreamInterruptedException;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\Health;
use OpenAgents\Runtime\Model\HealthStatus;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\Testing\FakeRuntime;
use OpenAgents\Runtime\Testing\RecordedCall;
use PHPUnit\Framework\AssertionFailedError;
use PHPUnit\Framework\TestCase;

final class FakeRuntimeTest extends TestCase
{
    public function testItAnswersInOrderAndRecords(): void
    {
        $fake = new FakeRuntime();
        $gone = new RunNotFoundException('run_not_found', 'no such run', [], null, 404);
        $fake->willReturn('health', new Health(HealthStatus::Ok, '1'), new Health(HealthStatus::Ok, '2'))
            ->willReturn('getRun', static fn (RecordedCall $c): Throwable => $c->arguments['runId'] === 'r' ? $gone : new LogicException());
        $this->assertSame(['1', '2', '2'], [$fake->health()->version, $fake->health()->version, $fake->health()->version]);
        $as = CallOptions::for(Principal::user(1));
        try {
            $fake->getRun('r', $as);
            $this->fail('no exception');
        } catch (RunNotFoundException $e) {
            $this->assertSame($gone, $e);
        }
        $fake->assertCalledTimes('health', 3);
        $fake->assertNotCalled('startRun');
        $fake->assertCalled('getRun', static fn (RecordedCall $c): bool => $c->options === $as);
        $this->assertCount(4, $fake->calls());
    }

    public function testAnUnscriptedCallSaysSo(): void
    {
        $this->expectException(LogicException::class);
        $this->expectExceptionMessage('appendFrame');
        (new FakeRuntime())->appendFrame('r', new AppendFrameRequest(frameId: 'f', type: 'tick', payload: []));
    }

    public function testItsAssertionsFail(): void
    {
        $fake = (new FakeRuntime())->willReturn('health', new Health(HealthStatus::Ok, '1'));
        $fake->assertNothingCalled();
        $fake->health();
        foreach ([
            static fn () => $fake->assertNothingCalled(),
            static fn () => $fake->assertCalled('getRun'),
            static fn () => $fake->assertCalled('health', static fn (): bool => false),
            static fn () => $fake->assertNotCalled('health'),
            static fn () => $fake->assertCalledTimes('health', 2),
        ] as $i => $assertion) {
            $failed = false;
            try {
                $assertion();
            } catch (AssertionFailedError) {
                $failed = true;
            }
            $this->assertTrue($failed, (string) $i);
        }
    }

    public function testAnUnknownOperationIsRefused(): void
    {
        $this->expectException(InvalidArgumentException::class);
        (new FakeRuntime())->willReturn('fly', null);
    }

    public function testStreams(): void
    {
        $fake = (new FakeRuntime())->willStream(FakeRuntime::text('Hel', 'lo.'));
        $parts = iterator_to_array($fake->streamRun('r')->parts(), false);
        $this->assertSame(range(1, 9), array_column($parts, 'id'));
        $this->assertSame('Hello.', $parts[3]->data['delta'] . $parts[4]->data['delta']);
        $this->assertSame([8, 9], array_column(iterator_to_array($fake->streamRun('r', lastEventId: 7)->parts(), false), 'id'));
        $this->assertTrue($fake->streamRun('r', cursor: 9)->isEmpty());
        $bytes = implode('', iterator_to_array($fake->streamRun('r')->bytes(), false));
        $this->assertStringEndsWith("data: [DONE]\nid: 9\n\n", $bytes);
    }

    public function testAStreamThatBreaks(): void
    {
        $broken = new StreamInterruptedException('gone', 1);
        $fake = (new FakeRuntime())->willStream([['type' => 'start'], $broken]);
        $seen = [];
        try {
            foreach ($fake->streamRun('r')->parts() as $part) {
                $seen[] = $part->type;
            }
            $this->fail('no exception');
        } catch (StreamInterruptedException $e) {
            $this->assertSame('gone', $e->getPrevious()?->getMessage() ?? $e->getMessage());
        }
        $this->assertSame(['start'], $seen);
    }
}
