<?php

declare(strict_types=1);

use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\DS\SpendAuthorizationV1;
use OpenAgents\Runtime\Model\SpendAuthorizationV1State;
use OpenAgents\Runtime\DS\SpendGrantV1;
use OpenAgents\Runtime\DS\SpendGrantV1Changes;
use OpenAgents\Runtime\DS\SpendGrantV1Constraints;
use OpenAgents\Runtime\Model\SpendGrantV1Mode;
use OpenAgents\Runtime\Model\SpendGrantV1ScopeKind;
use OpenAgents\Runtime\Model\SpendReservationV1State;
use OpenAgents\Runtime\Exception\AuthorizationChangedException;
use OpenAgents\Runtime\Exception\AuthorizationClosedException;
use OpenAgents\Runtime\Exception\AuthorizationConflictException;
use OpenAgents\Runtime\Exception\AuthorizationInUseException;
use OpenAgents\Runtime\Exception\AuthorizationNotFoundException;
use OpenAgents\Runtime\Exception\InvalidRequestException;
use OpenAgents\Runtime\Exception\PolicyDeniedException;
use OpenAgents\Runtime\Exception\ReservationNotFoundException;
use OpenAgents\Runtime\Exception\ReservationSettledException;
use OpenAgents\Runtime\Exception\RuntimeApiException;
use OpenAgents\Runtime\Model\AmendSpendAuthorizationRequest;
use OpenAgents\Runtime\Model\CreateSpendAuthorizationRequest;
use OpenAgents\Runtime\Model\ReconcileSpendReservationRequest;
use OpenAgents\Runtime\Model\ReconcileSpendReservationRequestOutcome;
use OpenAgents\Runtime\Model\RecoverStuckSpendRequest;
use OpenAgents\Runtime\Model\RevokeSpendAuthorizationRequest;
use OpenAgents\Runtime\Model\SpendAuthorizationState;
use OpenAgents\Runtime\Model\SpendReservationState;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\ResponseInfo;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;
use PHPUnit\Framework\TestCase;

/** The service holds 60 of run-paid's budget for a call that was paid with 40, and 70 for one of which nobody knows. */
final class SpendTest extends TestCase
{
    private RuntimeClient $client;
    private CallOptions $as;
    private CallOptions $stranger;
    private string $id;

    protected function setUp(): void
    {
        $this->client = RuntimeClient::create(new ClientOptions((string) getenv('BASE_URL')), Signer::fromKeyring((string) getenv('SECRET')));
        $this->as = CallOptions::for(Principal::user(7));
        $this->stranger = CallOptions::for(Principal::user(8));
        $this->id = 'auth_' . bin2hex(random_bytes(16));
    }

    public function testAnAuthorizationFromIssueToRevocation(): void
    {
        $grant = $this->grant(maxTotalSats: 5000, maxPerCallSats: 1000, maxPerDaySats: 2000, constraints: new SpendGrantV1Constraints(
            allowedTools: ['l402.fetch'], maxFeeSats: 10,
        ), metadata: ['plan' => 'weekly report']);
        $replays = [];
        $options = new CallOptions(Principal::user(7), onResponse: static function (ResponseInfo $i) use (&$replays): void {
            $replays[] = $i->idempotentReplay;
        });
        $issued = $this->client->createSpendAuthorization($grant, $options);
        $this->assertEquals($issued, $this->client->createSpendAuthorization($grant, $options));
        $this->assertSame([false, true], $replays);
        $this->assertSame([$this->id, 'user:7', 5000, 1, ['l402.fetch'], ['plan' => 'weekly report']], [
            $issued->authorization->authorizationId, $issued->authorization->owner, $issued->authorization->remainingSats,
            $issued->authorization->revision, $issued->authorization->constraints->allowedTools, $issued->authorization->metadata,
        ]);
        $this->assertSame([2000, 1000], [$issued->effective->remainingSats, $issued->effective->maxPerCallSats]);
        $this->refused(AuthorizationConflictException::class, 409, fn () => $this->client->createSpendAuthorization($this->grant(maxTotalSats: 1), $this->as));
        $this->refused(AuthorizationNotFoundException::class, 404, fn () => $this->client->getSpendAuthorization($this->id, $this->stranger));
        $this->assertEquals($issued->authorization, $this->client->getSpendAuthorization($this->id, $this->as)->authorization);

        $change = new AmendSpendAuthorizationRequest(revision: 1, reason: 'more sources', changes: new SpendGrantV1Changes(maxTotalSats: 8000));
        $raised = $this->client->amendSpendAuthorization($this->id, $change, $this->as);
        $this->assertSame([8000, 2], [$raised->authorization->maxTotalSats, $raised->authorization->revision]);
        $this->assertSame(2, $this->client->amendSpendAuthorization($this->id, $change, $this->as)->authorization->revision);
        $this->refused(AuthorizationChangedException::class, 409, fn () => $this->client->amendSpendAuthorization($this->id, new AmendSpendAuthorizationRequest(
            revision: 1, reason: 'something else', changes: new SpendGrantV1Changes(maxTotalSats: 9000),
        ), $this->as), static fn ($e) => $e->details['revision'] === 2);

        $run = 'run-' . bin2hex(random_bytes(8));
        $start = new StartRunRequest(runId: $run, threadId: 't', authenticatedSession: true, userId: 7, authorizationId: $this->id);
        $this->assertSame($run, $this->client->startRun($start, $this->as)->runId);
        $this->refused(AuthorizationNotFoundException::class, 404, fn () => $this->client->startRun(new StartRunRequest(
            runId: $run . 'x', threadId: 't', authenticatedSession: true, userId: 8, authorizationId: $this->id,
        ), $this->stranger));

        $listed = $this->client->listSpendAuthorizations(state: SpendAuthorizationState::Live, options: $this->as);
        $this->assertContains($this->id, array_map(static fn (SpendAuthorizationV1 $a) => $a->authorizationId, $listed->authorizations));
        $revoked = $this->client->revokeSpendAuthorization($this->id, new RevokeSpendAuthorizationRequest(reason: 'canceled'), $this->as);
        $this->assertSame([SpendAuthorizationV1State::Revoked, 'canceled'], [$revoked->authorization->state, $revoked->authorization->revokeReason]);
        $this->refused(AuthorizationClosedException::class, 409, fn () => $this->client->amendSpendAuthorization($this->id, new AmendSpendAuthorizationRequest(
            revision: 3, reason: 'too late', changes: new SpendGrantV1Changes(maxTotalSats: 9000),
        ), $this->as));
        $this->refused(PolicyDeniedException::class, 403, fn () => $this->client->createSpendAuthorization(new CreateSpendAuthorizationRequest(new SpendGrantV1(
            authorizationId: $this->id . '-child', scopeKind: SpendGrantV1ScopeKind::Owner, mode: SpendGrantV1Mode::DelegatedBudget,
            parentAuthorizationId: $this->id, maxTotalSats: 5,
        )), $this->as), static fn ($e) => $e->details['reasonCode'] === 'policy_denied.delegation_invalid');
        $this->refused(InvalidRequestException::class, 400, fn () => $this->client->createSpendAuthorization($this->grant(), $this->as),
            static fn ($e) => $e->details['pointer'] === '/authorization/max_total_sats');
    }

    public function testWhatWasHeldAndWhatBecameOfIt(): void
    {
        $held = $this->client->listSpendReservationsOf('auth-paid', options: $this->as)->reservations;
        $this->assertSame(['call-2', 'call-1'], array_column($held, 'toolCallId'));
        $this->assertSame([SpendReservationV1State::Committed, 60, 40, 'data.example.com'], [$held[1]->state, $held[1]->amountSats, $held[1]->committedSats, $held[1]->host]);
        $unknown = $this->client->listSpendReservations(state: SpendReservationState::ReconcileRequired, options: $this->as)->reservations;
        $this->assertSame([['run-paid', 'call-2']], array_map(static fn ($r) => [$r->runId, $r->toolCallId], $unknown));
        $this->assertSame([], $this->client->listSpendReservations(options: $this->stranger)->reservations);
        $this->refused(AuthorizationInUseException::class, 409, fn () => $this->client->amendSpendAuthorization('auth-paid', new AmendSpendAuthorizationRequest(
            revision: 1, reason: 'less', changes: new SpendGrantV1Changes(maxTotalSats: 109),
        ), $this->as), static fn ($e) => $e->details['leastSats'] === 110);

        $paid = static fn (ReconcileSpendReservationRequestOutcome $o) => new ReconcileSpendReservationRequest(
            outcome: $o, reason: 'the node lists it as settled', evidence: ['lookup' => 'SETTLED'], amountSats: $o === ReconcileSpendReservationRequestOutcome::Commit ? 65 : null,
        );
        $settled = $this->client->reconcileSpendReservation('run-paid', 'call-2', $paid(ReconcileSpendReservationRequestOutcome::Commit), $this->as)->reservation;
        $this->assertSame([SpendReservationV1State::Committed, 65], [$settled->state, $settled->committedSats]);
        $this->assertEquals($settled, $this->client->reconcileSpendReservation('run-paid', 'call-2', $paid(ReconcileSpendReservationRequestOutcome::Commit), $this->as)->reservation);
        $this->refused(ReservationSettledException::class, 409, fn () => $this->client->reconcileSpendReservation('run-paid', 'call-2', $paid(ReconcileSpendReservationRequestOutcome::Release), $this->as));
        $this->refused(ReservationNotFoundException::class, 404, fn () => $this->client->reconcileSpendReservation('run-paid', 'call-9', $paid(ReconcileSpendReservationRequestOutcome::Commit), $this->as));
        $this->assertSame(0, $this->client->recoverStuckSpend(new RecoverStuckSpendRequest(), $this->as)->checked);

        $page = $this->client->getSpendStatement('auth-paid', limit: 4, options: $this->as);
        $movements = $page->statement->movements;
        while ($page->nextPageToken !== null) {
            $page = $this->client->getSpendStatement('auth-paid', limit: 4, pageToken: $page->nextPageToken, options: $this->as);
            array_push($movements, ...$page->statement->movements);
        }
        $this->assertSame(['issue', 'hold', 'capture', 'release', 'hold', 'capture', 'release'], array_map(static fn ($m) => $m->kind->value, $movements));
        $this->assertSame([1000, 1000, 960, 960, 960, 895, 895], array_column($movements, 'balanceSats'));
        $this->assertSame([895, 0, 105], [$page->statement->closing->balanceSats, $page->statement->closing->heldSats, $page->statement->sums->capturedSats]);

        $table = '';
        $token = null;
        do {
            $part = $this->client->exportSpendStatement('auth-paid', limit: 3, pageToken: $token, options: $this->as);
            $table .= $part->text;
            $token = $part->nextPageToken;
        } while ($token !== null);
        $rows = array_map(static fn (string $line) => str_getcsv($line, ',', '"', ''), explode("\r\n", rtrim($table)));
        $this->assertCount(1 + 1 + 7 + 1 + 8, $rows);
        $this->assertSame(array_fill(0, \count($rows), \count($rows[0])), array_map('count', $rows));
        $this->assertSame(['closing balance', '895'], [$rows[9][1], $rows[9][12]]);
    }

    private function grant(
        ?int $maxTotalSats = null, ?int $maxPerCallSats = null, ?int $maxPerDaySats = null, ?SpendGrantV1Constraints $constraints = null, ?array $metadata = null,
    ): CreateSpendAuthorizationRequest {
        return new CreateSpendAuthorizationRequest(new SpendGrantV1(
            authorizationId: $maxTotalSats === null ? $this->id . '-none' : $this->id, scopeKind: SpendGrantV1ScopeKind::Owner, mode: SpendGrantV1Mode::DelegatedBudget,
            maxTotalSats: $maxTotalSats, maxPerCallSats: $maxPerCallSats, maxPerDaySats: $maxPerDaySats, constraints: $constraints,
            expiresAt: '2099-01-01T00:00:00Z', metadata: $metadata,
        ));
    }

    /** @param class-string<RuntimeApiException> $class */
    private function refused(string $class, int $status, Closure $call, ?Closure $that = null): void
    {
        try {
            $call();
        } catch (RuntimeApiException $e) {
            $this->assertSame([$class, $status], [$e::class, $e->status], $e->getMessage());
            $this->assertTrue($that === null || $that($e), $e->getMessage());

            return;
        }
        $this->fail('no exception');
    }
}
