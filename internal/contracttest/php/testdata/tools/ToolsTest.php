<?php

declare(strict_types=1);

use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\Event\Events;
use OpenAgents\Runtime\Event\UnknownEvent;
use OpenAgents\Runtime\Exception\ApprovalChangedException;
use OpenAgents\Runtime\Exception\ApprovalClosedException;
use OpenAgents\Runtime\Exception\ApprovalNotFoundException;
use OpenAgents\Runtime\Exception\InvalidRequestException;
use OpenAgents\Runtime\Exception\ToolNotFoundException;
use OpenAgents\Runtime\Exception\ToolTaskNotFoundException;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\ApprovalState;
use OpenAgents\Runtime\Model\ClientTool;
use OpenAgents\Runtime\Model\DecideApprovalRequest;
use OpenAgents\Runtime\Model\DecideApprovalRequestDecision;
use OpenAgents\Runtime\Model\ExecuteToolRequest;
use OpenAgents\Runtime\Model\PolicyDecision;
use OpenAgents\Runtime\Model\RunStatus;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Model\ToolKind;
use OpenAgents\Runtime\Model\ToolTaskState;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;
use OpenAgents\Runtime\Stream\StreamPart;
use PHPUnit\Framework\TestCase;

/** The model of this service calls browser.location once and then says where the user is. */
final class ToolsTest extends TestCase
{
    private RuntimeClient $client;
    private string $run;
    private string $thread;
    private CallOptions $as;
    private CallOptions $stranger;
    private ?StreamPart $read = null;

    protected function setUp(): void
    {
        $this->client = RuntimeClient::create(new ClientOptions((string) getenv('BASE_URL')), Signer::fromKeyring((string) getenv('SECRET')));
        $this->run = 'run-' . bin2hex(random_bytes(8));
        $this->thread = 'thread-' . bin2hex(random_bytes(8));
        $this->as = CallOptions::for(Principal::user(7));
        $this->stranger = CallOptions::for(Principal::user(8));
        $this->client->startRun(new StartRunRequest(
            runId: $this->run, threadId: $this->thread, authenticatedSession: true, userId: 7,
            clientTools: [new ClientTool(
                name: 'browser.location', description: 'Where the user is.', requiresApproval: true, timeoutMs: 60_000,
                inputSchema: ['type' => 'object', 'properties' => ['precise' => ['type' => 'boolean']]],
            )],
        ), $this->as);
    }

    public function testAClientToolThatAPersonApproves(): void
    {
        [$listed] = array_values(array_filter($this->client->listTools($this->run, $this->as)->tools, static fn ($t) => $t->kind === ToolKind::Client));
        $this->assertSame(['browser.location', PolicyDecision::NeedsApproval], [$listed->name, $listed->decision]);

        $stream = $this->ask();
        $parts = $stream->parts();
        $question = $this->upTo($parts, 'tool-approval-request')->data;

        $inbox = $this->client->listApprovals(ApprovalState::Pending, $this->thread, options: $this->as)->approvals;
        $this->assertSame([$question['approvalId']], array_column($inbox, 'approvalId'));
        $approval = $inbox[0];
        $this->assertSame([$question['toolCallId'], ['precise' => true]], [$approval->toolCallId, $approval->request['input']]);
        $this->assertSame([], $this->client->listApprovals(options: $this->stranger)->approvals);
        $this->waits('approval');

        $yes = new DecideApprovalRequest(DecideApprovalRequestDecision::Approved, $approval->argsHash, $approval->policyHash, 'it is mine');
        $this->refused(ApprovalNotFoundException::class, 404, fn () => $this->client->decideApproval($approval->approvalId, $yes, $this->stranger));
        $this->refused(ApprovalChangedException::class, 409, fn () => $this->client->decideApproval(
            $approval->approvalId, new DecideApprovalRequest(DecideApprovalRequestDecision::Approved, 'sha256:' . str_repeat('0', 64)), $this->as,
        ));
        $decided = $this->client->decideApproval($approval->approvalId, $yes, $this->as);
        $this->assertSame([ApprovalState::Approved, 'user:7', 'it is mine'], [$decided->state, $decided->decidedBy, $decided->reason]);
        $this->assertEquals($decided, $this->client->decideApproval($approval->approvalId, $yes, $this->as));
        $this->refused(ApprovalClosedException::class, 409, fn () => $this->client->decideApproval(
            $approval->approvalId, new DecideApprovalRequest(DecideApprovalRequestDecision::Rejected), $this->as,
        ), static fn ($e) => $e->details['approval']['state'] === 'approved');
        $this->assertSame(true, $this->upTo($parts, 'tool-approval-response')->data['approved']);
        $this->waits('tool');

        $this->client->appendFrame($this->run, new AppendFrameRequest(
            frameId: 'result-of-' . $approval->toolCallId, type: 'tool_result', payload: ['toolCallId' => $approval->toolCallId, 'output' => ['city' => 'Paris']],
        ), $this->as);
        $this->assertSame(['city' => 'Paris'], $this->upTo($parts, 'tool-output-available')->data['output']);
        $this->upTo($parts, '[DONE]');

        $task = $this->client->getToolTask($approval->toolCallId, $this->run, $this->as);
        $this->assertSame([ToolTaskState::Succeeded, 'browser.location', $approval->approvalId], [$task->state, $task->tool, $task->approvalId]);
        $this->assertSame([['city' => 'Paris'], $approval->argsHash], [$task->output, $task->paramsHash]);
        $this->assertSame([$task->paramsHash, $task->outputHash], [$task->receipt->paramsHash, $task->receipt->outputHash]);
        $this->assertSame([$task->toolCallId], array_column($this->client->listToolTasks($this->run, options: $this->as)->tasks, 'toolCallId'));
        $this->assertEquals($task, $this->client->cancelToolTask($task->toolCallId, options: $this->as));
        $run = $this->client->getRun($this->run, $this->as);
        $this->assertSame([RunStatus::Completed, null], [$run->status, $run->waitsFor]);
        $this->assertStringContainsString('Paris', $run->assistantMessage->text);
        foreach ($this->client->listRunEvents($this->run, limit: 1000, options: $this->as)->events as $event) {
            $this->assertNotInstanceOf(UnknownEvent::class, Events::of($event), $event->eventType);
        }
    }

    public function testAPersonsNoIsToldToTheModel(): void
    {
        $parts = $this->ask()->parts();
        $question = $this->upTo($parts, 'tool-approval-request')->data;
        $this->client->decideApproval($question['approvalId'], new DecideApprovalRequest(DecideApprovalRequestDecision::Rejected, reason: 'not now'), $this->as);
        $this->upTo($parts, 'tool-output-denied');
        $this->upTo($parts, '[DONE]');
        $task = $this->client->getToolTask($question['toolCallId'], options: $this->as);
        $this->assertSame([ToolTaskState::Failed, 'approval_rejected'], [$task->state, $task->errorClass]);
        $this->assertStringContainsString('not now', $this->client->getRun($this->run, $this->as)->assistantMessage->text);
    }

    public function testRefusalsHaveTheirClasses(): void
    {
        $call = fn (string $tool) => new ExecuteToolRequest(runId: $this->run, toolCallId: 'c1', tool: $tool, input: []);
        $this->refused(ToolNotFoundException::class, 404, fn () => $this->client->executeTool($call('nowhere.tool'), options: $this->as));
        $this->refused(InvalidRequestException::class, 400, fn () => $this->client->executeTool($call('browser.location'), options: $this->as));
        $this->refused(ToolTaskNotFoundException::class, 404, fn () => $this->client->getToolTask('c1', options: $this->as));
        $this->refused(ToolTaskNotFoundException::class, 404, fn () => $this->client->cancelToolTask('c1', options: $this->as));
        $this->refused(ApprovalNotFoundException::class, 404, fn () => $this->client->getApproval('appr_' . str_repeat('0', 24), $this->as));
    }

    private function ask(): OpenAgents\Runtime\Stream\RunStream
    {
        $accepted = $this->client->appendFrame($this->run, new AppendFrameRequest(
            frameId: 'f-' . $this->run, type: 'user_message', payload: ['text' => 'Where am I?'],
        ), $this->as);

        return $this->client->streamRun($this->run, cursor: $accepted->seq, parts: 'ai7', options: $this->as);
    }

    /** The next part of a type. It reads no further, because what follows may wait for this test. */
    private function upTo(Generator $parts, string $type): StreamPart
    {
        $seen = [];
        for ($part = $this->read === null ? $parts->current() : $this->after($parts); $part !== null; $part = $this->after($parts)) {
            $this->read = $part;
            $seen[] = $part->type;
            if ($part->type === $type) {
                return $part;
            }
        }
        $this->fail("no {$type} in " . implode(' ', $seen));
    }

    private function after(Generator $parts): ?StreamPart
    {
        $parts->next();

        return $parts->valid() ? $parts->current() : null;
    }

    private function waits(string $for): void
    {
        for ($end = microtime(true) + 20; microtime(true) < $end; usleep(20_000)) {
            $run = $this->client->getRun($this->run, $this->as);
            if ($run->status === RunStatus::Waiting && $run->waitsFor?->value === $for) {
                return;
            }
        }
        $this->fail("the run does not wait for {$for}: {$run->status->value}");
    }

    private function refused(string $class, int $status, Closure $call, ?Closure $that = null): void
    {
        try {
            $call();
        } catch (Throwable $e) {
            $this->assertSame($class, $e::class, $e->getMessage());
            $this->assertSame($status, $e->status);
            $this->assertTrue($that === null || $that($e), $e->getMessage());

            return;
        }
        $this->fail('no exception');
    }
}
