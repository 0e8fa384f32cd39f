<?php

declare(strict_types=1);

use GuzzleHttp\Client;
use GuzzleHttp\Exception\ConnectException;
use GuzzleHttp\Exception\RequestException;
use GuzzleHttp\Handler\MockHandler;
use GuzzleHttp\HandlerStack;
use GuzzleHttp\Middleware;
use GuzzleHttp\Psr7\Request;
use GuzzleHttp\Psr7\Response;
use OpenAgents\Runtime\Call;
use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\Exception\InternalException;
use OpenAgents\Runtime\Exception\RunNotFoundException;
use OpenAgents\Runtime\Exception\RuntimeApiException;
use OpenAgents\Runtime\Exception\StaleCursorException;
use OpenAgents\Runtime\Exception\TransportException;
use OpenAgents\Runtime\Exception\UnavailableException;
use OpenAgents\Runtime\Exception\UnexpectedResponseException;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\CancelRunRequest;
use OpenAgents\Runtime\Model\ErrorCode;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\ResponseInfo;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;
use OpenAgents\Runtime\TraceContext;
use OpenAgents\Runtime\Transport;
use PHPUnit\Framework\TestCase;

final class TransportTest extends TestCase
{
    private const SECRET = '0123456789abcdef0123456789abcdef';
    private const HEALTH = '{"status":"ok","service":"runtime","version":"1"}';

    private array $sent = [];
    private array $slept = [];

    public function testARequestIsSignedForWhatIsSent(): void
    {
        $client = $this->client([$this->json(202, ['runId' => 'r/1', 'threadId' => 't', 'status' => 'accepted', 'streamUrl' => '/s'])]);
        $client->startRun(new StartRunRequest(runId: 'r/1', threadId: 't', authenticatedSession: false, userId: 7, guestScope: 'g-1'));
        $request = $this->request(0);
        $claims = $this->claims(0);
        $this->assertSame(['7', 'g-1'], [$request->getHeaderLine('X-OA-USER-ID'), $request->getHeaderLine('X-OA-GUEST-SCOPE')]);
        $this->assertSame('application/json', $request->getHeaderLine('Content-Type'));
        $this->assertSame([
            'actor' => 'laravel', 'aud' => 'openagents-runtime',
            'body_sha256' => hash('sha256', (string) $request->getBody()),
            'guest_scope' => 'g-1', 'kid' => 'k1', 'method' => 'POST', 'run_id' => 'r/1',
            'scope' => 'service', 'target' => '/internal/v1/runs', 'thread_id' => 't', 'user_id' => 7,
        ], array_diff_key($claims, ['iat' => 0, 'exp' => 0, 'nonce' => 0]));
        $this->assertSame(60, $claims['exp'] - $claims['iat']);
    }

    public function testThePathAndQueryAreEncodedAndSignedAsSent(): void
    {
        $client = $this->client([$this->json(200, ['runs' => []]), $this->json(200, $this->page())]);
        $client->listRuns(threadId: 'a b&c', limit: 5, options: CallOptions::for(Principal::user(3)));
        $this->assertSame('/internal/v1/runs?threadId=a%20b%26c&limit=5', $this->request(0)->getRequestTarget());
        $client->listRunEvents('r/ü:1', cursor: 0);
        $this->assertSame('/internal/v1/runs/r%2F%C3%BC%3A1/events?cursor=0', $this->request(1)->getRequestTarget());
        foreach ([0, 1] as $i) {
            $this->assertSame($this->request($i)->getRequestTarget(), $this->claims($i)['target']);
        }
        $this->assertSame(3, $this->claims(0)['user_id']);
        $this->assertSame('r/ü:1', $this->claims(1)['run_id']);
        $this->assertSame('read', $this->claims(1)['scope']);
        $this->assertArrayNotHasKey('user_id', $this->claims(1));
        $this->assertSame(hash('sha256', ''), $this->claims(1)['body_sha256']);
    }

    /** @dataProvider badSegments */
    public function testAnIdCannotLeadToAnotherPath(string $id): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->client([])->getRun($id);
    }

    public function badSegments(): iterable
    {
        return [[''], ['.'], ['..']];
    }

    public function testAnAbsentBodyIsNoBody(): void
    {
        $answer = ['runId' => 'r', 'status' => 'canceling', 'cancelRequested' => true, 'idempotentReplay' => false];
        $client = $this->client([$this->json(202, $answer), $this->json(202, $answer)]);
        $client->cancelRun('r');
        $client->cancelRun('r', new CancelRunRequest());
        $this->assertSame(['', '{}'], [(string) $this->request(0)->getBody(), (string) $this->request(1)->getBody()]);
        $this->assertFalse($this->request(0)->hasHeader('Content-Type'));
    }

    public function testTraceAndIdentityAreSent(): void
    {
        $client = $this->client(
            array_fill(0, 2, new Response(200, [], self::HEALTH)),
            trace: static fn (): TraceContext => new TraceContext('00-a-b-01', 'x=1', 'req-1'),
            identity: static fn (): string => 'jwt',
        );
        $client->health();
        $client->health(new CallOptions(trace: new TraceContext(requestId: 'req-2'), scope: 'operator', actor: 'ops'));
        $headers = static fn (Request $r): array => array_map($r->getHeaderLine(...), ['traceparent', 'tracestate', 'x-request-id', 'Authorization']);
        $this->assertSame(['00-a-b-01', 'x=1', 'req-1', 'Bearer jwt'], $headers($this->request(0)));
        $this->assertSame(['', '', 'req-2', 'Bearer jwt'], $headers($this->request(1)));
        $this->assertSame(['operator', 'ops'], [$this->claims(1)['scope'], $this->claims(1)['actor']]);
    }

    public function testOddTraceHeadersAreLeftOut(): void
    {
        $trace = TraceContext::from(static fn (string $name): ?string => ['traceparent' => "a\r\nb", 'x-request-id' => str_repeat('x', 129), 'tracestate' => 's=1'][$name] ?? null);
        $this->assertSame([], $trace->headers());
    }

    /** @dataProvider passing */
    public function testWhatPassesIsTriedAgainWithANewToken(Closure $failure): void
    {
        $client = $this->client([$failure(), $failure(), new Response(200, ['x-request-id' => 'req'], self::HEALTH)]);
        $info = null;
        $client->health(new CallOptions(onResponse: static function (ResponseInfo $i) use (&$info): void {
            $info = $i;
        }));
        $this->assertCount(3, $this->sent);
        $this->assertCount(3, array_unique(array_map(fn (int $i): string => $this->claims($i)['nonce'], [0, 1, 2])));
        $this->assertSame(['req', 3, 200, false], [$info->requestId, $info->attempts, $info->status, $info->idempotentReplay]);
        $this->assertGreaterThanOrEqual(100, $this->slept[0]);
        $this->assertLessThanOrEqual(201, $this->slept[0]);
        $this->assertGreaterThanOrEqual(200, $this->slept[1]);
        $this->assertLessThanOrEqual(401, $this->slept[1]);
    }

    public function passing(): iterable
    {
        yield 'refused' => [static fn () => new ConnectException('refused', new Request('GET', '/'))];
        yield 'reset' => [static fn () => new RequestException('reset', new Request('GET', '/'))];
        foreach ([429, 502, 503, 504] as $status) {
            yield (string) $status => [static fn () => new Response($status, [], 'a proxy says so')];
        }
    }

    public function testAttemptsEnd(): void
    {
        $client = $this->client(array_fill(0, 5, new ConnectException('refused', new Request('GET', '/'))));
        try {
            $client->health();
        } catch (TransportException $e) {
            $this->assertCount(3, $this->sent);

            return;
        }
        $this->fail('no exception');
    }

    /** @dataProvider staying */
    public function testWhatStaysIsThrownAtOnce(int $status): void
    {
        $client = $this->client(array_fill(0, 3, new Response($status)));
        try {
            $client->health();
        } catch (RuntimeApiException $e) {
            $this->assertCount(1, $this->sent);
            $this->assertSame($status, $e->status);

            return;
        }
        $this->fail('no exception');
    }

    public function staying(): iterable
    {
        foreach ([301, 400, 401, 403, 404, 409, 410, 413, 500, 501] as $status) {
            yield [$status];
        }
    }

    public function testACallThatIsNotIdempotentIsSentOnce(): void
    {
        $this->client([]);
        $transport = $this->transport([new Response(503), new Response(200)]);
        try {
            $transport->send(new Call('op', 'POST', '/x', 'service', false, body: []), new CallOptions());
        } catch (RuntimeApiException) {
            $this->assertCount(1, $this->sent);
            $this->assertSame('{}', (string) $this->request(0)->getBody());

            return;
        }
        $this->fail('no exception');
    }

    public function testRetryAfterIsKept(): void
    {
        $client = $this->client([new Response(503, ['Retry-After' => '2']), new Response(429, ['Retry-After' => gmdate('D, d M Y H:i:s \G\M\T', time() + 10)]), new Response(200, [], self::HEALTH)]);
        $client->health();
        $this->assertSame(2000, $this->slept[0]);
        $this->assertGreaterThanOrEqual(8000, $this->slept[1]);
        $this->assertLessThanOrEqual(10000, $this->slept[1]);
    }

    public function testALongRetryAfterIsTheCallersToWait(): void
    {
        $client = $this->client([new Response(503, ['Retry-After' => '3600'])]);
        try {
            $client->health();
        } catch (UnexpectedResponseException $e) {
            $this->assertSame(3600_000, $e->retryAfterMs);
            $this->assertSame([], $this->slept);

            return;
        }
        $this->fail('no exception');
    }

    public function testEveryCodeHasItsClass(): void
    {
        foreach (ErrorCode::cases() as $code) {
            $client = $this->client([new Response(418, [], json_encode(['error' => [
                'code' => $code->value, 'message' => 'change it', 'details' => ['a' => 1], 'requestId' => 'req',
            ]]))]);
            try {
                $client->health();
                $this->fail('no exception');
            } catch (RuntimeApiException $e) {
                $this->assertNotSame(RuntimeApiException::class, $e::class);
                $this->assertSame(str_replace('_', '', $code->value) . 'exception', strtolower((new ReflectionClass($e))->getShortName()));
                $this->assertSame([$code->value, 'change it', ['a' => 1], 'req', 418, 418], [$e->errorCode, $e->getMessage(), $e->details, $e->requestId, $e->status, $e->getCode()]);
            }
        }
    }

    public function testANewerCodeIsTheBaseClass(): void
    {
        $client = $this->client([new Response(400, [], '{"error":{"code":"newer","message":"m","details":{},"requestId":"r"}}')]);
        try {
            $client->health();
            $this->fail('no exception');
        } catch (RuntimeApiException $e) {
            $this->assertSame([RuntimeApiException::class, 'newer'], [$e::class, $e->errorCode]);
        }
    }

    public function testAStaleCursorTellsHowToGoOn(): void
    {
        $client = $this->client([new Response(410, [], '{"error":{"code":"stale_cursor","message":"m","details":{"floor":40,"head":90,"restartCursor":41,"snapshotUrl":"/internal/v1/runs/r1"},"requestId":"r"}}')]);
        try {
            $client->streamRun('r1', cursor: 3);
            $this->fail('no exception');
        } catch (StaleCursorException $e) {
            $this->assertSame([40, 90, 41, '/internal/v1/runs/r1'], [$e->floor(), $e->head(), $e->restartCursor(), $e->snapshotUrl()]);
        }
    }

    public function testAHeadIsReadFromHeaders(): void
    {
        $client = $this->client([new Response(200, ['x-oa-stream-floor' => '0', 'x-oa-stream-head' => '24', 'x-oa-stream-closed' => 'true']), new Response(404), new Response(500), new Response(418)]);
        $answer = $client->probeRunStream('r');
        $this->assertSame([0, 24, true], [$answer->streamFloor, $answer->streamHead, $answer->streamClosed]);
        foreach ([RunNotFoundException::class, InternalException::class, UnexpectedResponseException::class] as $class) {
            try {
                $client->probeRunStream('r');
                $this->fail('no exception');
            } catch (RuntimeApiException $e) {
                $this->assertInstanceOf($class, $e);
            }
        }
    }

    /** @dataProvider nonsense */
    public function testAnAnswerThatIsNotTheServices(Response $response): void
    {
        $this->expectException(UnexpectedResponseException::class);
        $this->client([$response])->health();
    }

    public function nonsense(): iterable
    {
        yield 'html' => [new Response(200, [], '<html>')];
        yield 'a list' => [new Response(200, [], '[]')];
        yield 'another shape' => [new Response(200, [], '{"status":"ok"}')];
        yield 'an error without envelope' => [new Response(500, [], '{"message":"x"}')];
    }

    public function testAStreamThatIsNone(): void
    {
        $this->expectException(UnexpectedResponseException::class);
        $this->client([new Response(200, ['Content-Type' => 'text/html'], '<html>')])->streamRun('r');
    }

    public function testAFrameIsSentAsItIs(): void
    {
        $client = $this->client([$this->json(202, ['runId' => 'r', 'frameId' => 'f', 'status' => 'accepted', 'idempotentReplay' => false, 'payloadHash' => 'sha256:' . str_repeat('0', 64), 'seq' => 2])]);
        $answer = $client->appendFrame('r', new AppendFrameRequest(frameId: 'f', type: 'user_message', payload: ['text' => 'ü/"']));
        $this->assertSame('{"frameId":"f","type":"user_message","payload":{"text":"ü/\""}}', (string) $this->request(0)->getBody());
        $this->assertSame(2, $answer->seq);
    }

    /** @dataProvider badBaseUrls */
    public function testABaseUrlIsAnOrigin(string $url): void
    {
        $this->expectException(InvalidArgumentException::class);
        new ClientOptions($url);
    }

    public function badBaseUrls(): iterable
    {
        return [[''], ['runtime:4000'], ['ftp://runtime'], ['http://runtime/api'], ['http://runtime?x=1']];
    }

    private function client(array $answers, ?Closure $trace = null, ?Closure $identity = null): RuntimeClient
    {
        return new RuntimeClient($this->transport($answers, $trace, $identity));
    }

    private function transport(array $answers, ?Closure $trace = null, ?Closure $identity = null): Transport
    {
        $this->sent = $this->slept = [];
        $stack = HandlerStack::create(new MockHandler($answers));
        $stack->push(Middleware::history($this->sent));

        return new Transport(
            new ClientOptions('http://runtime:4000'), Signer::fromKeyring('k1:' . self::SECRET),
            new Client(['handler' => $stack]), trace: $trace, identity: $identity,
            sleep: function (int $ms): void {
                $this->slept[] = $ms;
            },
        );
    }

    private function request(int $i): Request
    {
        return $this->sent[$i]['request'];
    }

    private function claims(int $i): array
    {
        return json_decode(base64_decode(strtr(explode('.', $this->request($i)->getHeaderLine('X-OA-RUNTIME-SIGNATURE'))[1], '-_', '+/')), true, 512, JSON_THROW_ON_ERROR);
    }

    private function json(int $status, array $body): Response
    {
        return new Response($status, ['Content-Type' => 'application/json'], json_encode($body));
    }

    private function page(): array
    {
        return ['runId' => 'r', 'events' => [], 'nextCursor' => 0, 'upToDate' => true, 'closed' => false, 'floor' => 0, 'head' => 0];
    }
}
