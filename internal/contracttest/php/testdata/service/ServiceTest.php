<?php

declare(strict_types=1);

use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\Canon;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\Event\Events;
use OpenAgents\Runtime\Event\FrameAppendedV1;
use OpenAgents\Runtime\Event\RunFinishedV1;
use OpenAgents\Runtime\Event\UnknownEvent;
use OpenAgents\Runtime\Exception\FrameConflictException;
use OpenAgents\Runtime\Exception\InvalidRequestException;
use OpenAgents\Runtime\Exception\PayloadTooLargeException;
use OpenAgents\Runtime\Exception\RunConflictException;
use OpenAgents\Runtime\Exception\RunFinishedException;
use OpenAgents\Runtime\Exception\RunNotFoundException;
use OpenAgents\Runtime\Exception\ThreadNotFoundException;
use OpenAgents\Runtime\Exception\UnauthorizedException;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\CancelRunRequest;
use OpenAgents\Runtime\Model\FrameSource;
use OpenAgents\Runtime\Model\HealthStatus;
use OpenAgents\Runtime\Model\ReasonClass;
use OpenAgents\Runtime\Model\RunLimits;
use OpenAgents\Runtime\Model\RunStatus;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Model\StartRunResponseStatus;
use OpenAgents\Runtime\Model\ThreadMessageRole;
use OpenAgents\Runtime\Model\ToolPolicy;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\ResponseInfo;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;
use OpenAgents\Runtime\TraceContext;
use PHPUnit\Framework\TestCase;

final class ServiceTest extends TestCase
{
    private RuntimeClient $client;
    private string $run;
    private string $thread;
    private CallOptions $as;

    protected function setUp(): void
    {
        $this->client = self::client((string) getenv('SECRET'));
        $this->run = 'run-' . bin2hex(random_bytes(8));
        $this->thread = 'thread-' . bin2hex(random_bytes(8));
        $this->as = CallOptions::for(Principal::user(7));
    }

    public function testHealth(): void
    {
        $this->assertSame(HealthStatus::Ok, $this->client->health()->status);
    }

    public function testARunFromEndToEnd(): void
    {
        $start = new StartRunRequest(
            runId: $this->run, threadId: $this->thread, authenticatedSession: true, userId: 7, autopilotId: 'autopilot-1',
            toolPolicy: new ToolPolicy(), limits: new RunLimits(maxSteps: 5),
        );
        $replays = [];
        $options = new CallOptions(Principal::user(7), onResponse: static function (ResponseInfo $i) use (&$replays): void {
            $replays[] = $i->idempotentReplay;
        });
        $this->assertSame(StartRunResponseStatus::Accepted, $this->client->startRun($start, $options)->status);
        $this->assertEquals($this->client->startRun($start), $this->client->startRun($start, $options));
        $this->assertSame([false, true], $replays);
        $this->refused(RunConflictException::class, 409, fn () => $this->client->startRun(new StartRunRequest(
            runId: $this->run, threadId: 'another', authenticatedSession: true, userId: 7,
        )));

        $frame = $this->message('What is 6 times 7?');
        $accepted = $this->client->appendFrame($this->run, $frame, $this->as);
        $again = $this->client->appendFrame($this->run, $frame, $this->as);
        $this->assertSame([false, true], [$accepted->idempotentReplay, $again->idempotentReplay]);
        $this->assertSame([$accepted->seq, $accepted->payloadHash], [$again->seq, $again->payloadHash]);

        $stream = $this->client->streamRun($this->run, cursor: $accepted->seq, options: $this->as);
        $parts = iterator_to_array($stream->parts(), false);
        $types = array_column($parts, 'type');
        $this->assertSame(['start', '[DONE]'], [$types[0], $types[\count($types) - 1]]);
        $this->assertSame(1, \count(array_keys($types, 'start', true)));
        $ids = array_column($parts, 'id');
        $sorted = $ids;
        sort($sorted);
        $this->assertSame([$sorted, \count($ids)], [$ids, \count(array_unique($ids))]);
        $text = implode('', array_map(static fn ($p) => $p->type === 'text-delta' ? $p->data['delta'] : '', $parts));
        $this->assertStringContainsString('42', $text);

        $run = $this->client->getRun($this->run, $this->as);
        $this->assertSame([RunStatus::Completed, ReasonClass::Completed, true, 1], [$run->status, $run->reasonClass, $run->closed, $run->framesFinished]);
        $this->assertSame([$text, true], [$run->assistantMessage->text, $run->assistantMessage->finished]);
        $this->assertSame(['autopilot-1', 5], [$run->autopilotId, $run->limits->maxSteps]);
        $this->assertSame([$run->head, $run->cursor], [$stream->cursor(), $stream->cursor()]);

        $probe = $this->client->probeRunStream($this->run, $this->as);
        $this->assertSame([$run->floor, $run->head, true], [$probe->streamFloor, $probe->streamHead, $probe->streamClosed]);
        $this->assertTrue($this->client->streamRun($this->run, lastEventId: $run->head, options: $this->as)->isEmpty());

        $middle = $ids[intdiv(\count($ids), 2)];
        $rest = iterator_to_array($this->client->streamRun($this->run, lastEventId: $middle, options: $this->as)->parts(), false);
        $this->assertEquals(array_values(array_filter($parts, static fn ($p) => $p->id > $middle)), $rest);

        $this->refused(FrameConflictException::class, 409, fn () => $this->client->appendFrame(
            $this->run, new AppendFrameRequest(frameId: $frame->frameId, type: 'user_message', payload: ['text' => 'other']), $this->as,
        ), static fn ($e) => $e->details['payloadHash'] === $accepted->payloadHash);
        $this->refused(RunFinishedException::class, 409, fn () => $this->client->appendFrame($this->run, $this->message('more'), $this->as));

        $listed = $this->client->listRuns(threadId: $this->thread, status: RunStatus::Completed, options: $this->as);
        $this->assertSame([$this->run], array_column($listed->runs, 'runId'));
        $state = $this->client->getThreadState($this->thread, options: $this->as);
        $this->assertSame([['What is 6 times 7?', $text], [ThreadMessageRole::User, ThreadMessageRole::Assistant]], [array_column($state->messages, 'text'), array_column($state->messages, 'role')]);
        $this->chainHolds();
    }

    /** Every event has its type, and the log's hashes are those that PHP computes. */
    private function chainHolds(): void
    {
        $prev = Canon::firstPrevHash($this->run);
        $cursor = 0;
        $seen = [];
        do {
            $page = $this->client->listRunEvents($this->run, cursor: $cursor, limit: 5, options: $this->as);
            foreach ($page->events as $event) {
                $typed = Events::of($event);
                $this->assertNotInstanceOf(UnknownEvent::class, $typed, $event->eventType);
                $this->assertSame($event->contentHash, Canon::hash($typed), $event->eventType);
                $this->assertSame($prev, $event->prevHash);
                $this->assertSame($event->eventHash, Canon::eventHash($this->run, $event->seq, $event->eventType, $event->eventVersion, $event->contentHash, $prev));
                $prev = $event->eventHash;
                $seen[] = $typed::class;
            }
            $cursor = $page->nextCursor;
        } while (!$page->upToDate);
        $this->assertTrue($page->closed);
        $this->assertContains(FrameAppendedV1::class, $seen);
        $this->assertContains(RunFinishedV1::class, $seen);
    }

    public function testACancel(): void
    {
        $this->client->startRun(new StartRunRequest(runId: $this->run, threadId: $this->thread, authenticatedSession: true, userId: 7, keepOpen: true), $this->as);
        $stream = $this->client->streamRun($this->run, options: $this->as);
        $first = $this->client->cancelRun($this->run, new CancelRunRequest(reason: 'the user pressed stop'), $this->as);
        $this->assertTrue($first->cancelRequested);
        $this->assertFalse($first->idempotentReplay);
        $this->assertContains($first->status, [RunStatus::Canceling, RunStatus::Canceled]);
        $types = array_column(iterator_to_array($stream->parts(), false), 'type');
        $this->assertSame('[DONE]', end($types));
        $this->assertSame(RunStatus::Canceled, $this->client->getRun($this->run, $this->as)->status);
        $again = $this->client->cancelRun($this->run, options: $this->as);
        $this->assertSame([true, RunStatus::Canceled], [$again->idempotentReplay, $again->status]);
    }

    public function testGuestsWhoShareAUserDoNotMeet(): void
    {
        $a = CallOptions::for(Principal::guest('g-a-' . $this->run, 1));
        $b = CallOptions::for(Principal::guest('g-b-' . $this->run, 1));
        $this->client->startRun(new StartRunRequest(runId: $this->run, threadId: $this->thread, authenticatedSession: false, userId: 1, guestScope: 'g-a-' . $this->run), $a);
        $this->assertSame($this->run, $this->client->getRun($this->run, $a)->runId);
        foreach ([$b, CallOptions::for(Principal::user(1))] as $other) {
            $this->refused(RunNotFoundException::class, 404, fn () => $this->client->getRun($this->run, $other));
            $this->refused(RunNotFoundException::class, 404, fn () => $this->client->streamRun($this->run, options: $other));
            $this->refused(RunNotFoundException::class, 404, fn () => $this->client->probeRunStream($this->run, $other));
            $this->refused(RunNotFoundException::class, 404, fn () => $this->client->cancelRun($this->run, options: $other));
            $this->refused(ThreadNotFoundException::class, 404, fn () => $this->client->getThreadState($this->thread, options: $other));
            $this->assertSame([], $this->client->listRuns(options: $other, threadId: $this->thread)->runs);
        }
    }

    public function testRefusalsHaveTheirClasses(): void
    {
        $this->refused(UnauthorizedException::class, 401, fn () => self::client('k1:' . str_repeat('another secret! ', 3))->health());
        $this->refused(InvalidRequestException::class, 400, fn () => $this->client->startRun(new StartRunRequest(runId: '-bad-', threadId: $this->thread, authenticatedSession: true, userId: 7)), static fn ($e) => str_contains($e->getMessage(), 'runId'));
        $this->client->startRun(new StartRunRequest(runId: $this->run, threadId: $this->thread, authenticatedSession: true, userId: 7));
        $this->refused(PayloadTooLargeException::class, 413, fn () => $this->client->appendFrame($this->run, $this->message(str_repeat('x', 300_000)), $this->as));
        $this->refused(InvalidRequestException::class, 400, fn () => $this->client->appendFrame($this->run, new AppendFrameRequest(frameId: 'f', type: 'user_message', payload: []), $this->as));
    }

    public function testATraceIsKeptInTheLog(): void
    {
        $trace = new TraceContext('00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', 'a=b', 'req-php-1');
        $info = null;
        $as = new CallOptions(Principal::user(7), $trace, onResponse: static function (ResponseInfo $i) use (&$info): void {
            $info = $i;
        });
        $this->client->startRun(new StartRunRequest(runId: $this->run, threadId: $this->thread, authenticatedSession: true, userId: 7), $as);
        $this->assertSame('req-php-1', $info->requestId);
        $this->assertStringContainsString('4bf92f3577b34da6a3ce929d0e0e4736', (string) $info->traceparent);
        $this->client->appendFrame($this->run, $this->message('Hi'), $as);
        iterator_to_array($this->client->streamRun($this->run, options: $this->as)->parts(), false);
        foreach ($this->client->listRunEvents($this->run, options: $this->as)->events as $event) {
            $this->assertSame('req-php-1', $event->requestId, $event->eventType);
            $this->assertStringContainsString('4bf92f3577b34da6a3ce929d0e0e4736', (string) $event->traceparent, $event->eventType);
        }
    }

    private function message(string $text): AppendFrameRequest
    {
        return new AppendFrameRequest(
            frameId: 'frame-' . bin2hex(random_bytes(8)), type: 'user_message', payload: ['text' => $text],
            source: new FrameSource(kind: 'laravel_api', requestId: 'req-1'),
        );
    }

    private function refused(string $class, int $status, Closure $call, ?Closure $that = null): void
    {
        try {
            $call();
        } catch (Throwable $e) {
            $this->assertSame($class, $e::class, $e->getMessage());
            $this->assertSame($status, $e->status);
            $this->assertNotNull($e->requestId);
            $this->assertTrue($that === null || $that($e), $e->getMessage());

            return;
        }
        $this->fail('no exception');
    }

    private static function client(string $keyring): RuntimeClient
    {
        return RuntimeClient::create(new ClientOptions((string) getenv('BASE_URL')), Signer::fromKeyring($keyring));
    }
}
