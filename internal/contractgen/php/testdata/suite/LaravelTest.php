<?php

declare(strict_types=1);

use Illuminate\Config\Repository;
use Illuminate\Foundation\Application;
use Illuminate\Http\Request;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\Laravel\Driver;
use OpenAgents\Runtime\Laravel\RuntimeServiceProvider;
use OpenAgents\Runtime\Laravel\StreamProxy;
use OpenAgents\Runtime\Exception\StreamInterruptedException;
use OpenAgents\Runtime\Runtime;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;
use OpenAgents\Runtime\Testing\FakeRuntime;
use OpenAgents\Runtime\Transport;
use PHPUnit\Framework\TestCase;

final class LaravelTest extends TestCase
{
    private const SECRET = '0123456789abcdef0123456789abcdef';

    public function testTheProviderBindsAClientFromConfig(): void
    {
        $app = $this->app(['signing_secret' => 'k9:' . self::SECRET, 'base_url' => 'http://runtime:4000', 'timeout_ms' => '1500', 'connect_timeout_ms' => 700, 'actor' => 'web']);
        $client = $app->make(Runtime::class);
        $this->assertInstanceOf(RuntimeClient::class, $client);
        $this->assertSame($client, $app->make(Runtime::class));
        $transport = self::peek($client, 'transport');
        /** @var ClientOptions $options */
        $options = $transport->options;
        $this->assertSame(['http://runtime:4000', 1500, 700, 3, 'web'], [$options->baseUrl, $options->timeoutMs, $options->connectTimeoutMs, $options->maxAttempts, $options->actor]);
        /** @var Signer $signer */
        $signer = self::peek($transport, 'signer');
        $this->assertSame(['k9', 'openagents-runtime', 60], [$signer->keyId, $signer->audience, $signer->ttlSeconds]);
        $this->assertFalse($app->make(Driver::class)->isService());
    }

    public function testAKeyIdOfItsOwn(): void
    {
        $app = $this->app(['signing_secret' => self::SECRET . ':x', 'kid' => 'k3']);
        $this->assertSame('k3', self::peek(self::peek($app->make(Runtime::class), 'transport'), 'signer')->keyId);
    }

    public function testTheDriverKeepsItsNames(): void
    {
        foreach (['legacy' => false, 'elixir' => true, 'runtime' => true] as $driver => $service) {
            $this->assertSame($service, $this->app([], $driver)->make(Driver::class)->isService());
        }
        $this->expectException(ValueError::class);
        $this->app([], 'erlang')->make(Driver::class);
    }

    public function testWithoutASecretThereIsNoClient(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('kid:secret');
        $this->app([])->make(Runtime::class);
    }

    public function testTheIncomingTraceIsCarriedOn(): void
    {
        $app = $this->app(['signing_secret' => 'k1:' . self::SECRET]);
        $trace = self::peek(self::peek($app->make(Runtime::class), 'transport'), 'trace');
        $this->assertNull($trace());
        foreach (['a', 'b'] as $id) { // one client, several requests
            $request = Request::create('/');
            $request->headers->set('traceparent', '00-' . $id);
            $request->headers->set('x-request-id', 'req-' . $id);
            $app->instance('request', $request);
            $this->assertSame(['traceparent' => '00-' . $id, 'x-request-id' => 'req-' . $id], $trace()->headers());
        }
    }

    public function testARequiredIdentityNeedsAProvider(): void
    {
        $config = ['signing_secret' => 'k1:' . self::SECRET, 'require_iam_identity' => 'true'];
        $app = $this->app($config + ['identity_token_provider' => Tokens::class]);
        $identity = self::peek(self::peek($app->make(Runtime::class), 'transport'), 'identity');
        $this->assertSame('jwt-1', $identity());
        $this->expectException(LogicException::class);
        $this->app($config)->make(Runtime::class);
    }

    public function testTheConfigHasTheKeysOfTheRunbook(): void
    {
        $config = $this->app([])->make('config')->get('runtime');
        $this->assertSame('legacy', $config['driver']);
        foreach (['base_url', 'timeout_ms', 'connect_timeout_ms', 'signing_secret', 'require_iam_identity'] as $key) {
            $this->assertArrayHasKey($key, $config['elixir']);
        }
    }

    public function testTheProxyPassesBytesAndHeadersOn(): void
    {
        $stream = (new FakeRuntime())->willStream(FakeRuntime::text('Hi'))->streamRun('r1');
        $response = StreamProxy::response($stream);
        foreach (['x-vercel-ai-ui-message-stream' => 'v1', 'X-Accel-Buffering' => 'no', 'X-Content-Type-Options' => 'nosniff', 'x-oa-run-id' => 'r1'] as $name => $value) {
            $this->assertSame($value, $response->headers->get($name));
        }
        $this->assertStringStartsWith('text/event-stream', (string) $response->headers->get('Content-Type'));
        $this->assertStringContainsString('no-transform', (string) $response->headers->get('Cache-Control'));
        $body = self::body($response);
        $this->assertStringStartsWith("data: {\"type\":\"start\",\"messageId\":\"msg-fake\"}\nid: 1\n\n", $body);
        $this->assertStringEndsWith("data: [DONE]\nid: 8\n\n", $body);
    }

    public function testNothingToResumeIs204(): void
    {
        $stream = (new FakeRuntime())->willStream(FakeRuntime::text('Hi'))->streamRun('r1', lastEventId: 8);
        $this->assertSame(204, StreamProxy::response($stream)->getStatusCode());
    }

    public function testABrokenStreamEndsWithAnErrorAndNoSecondStart(): void
    {
        $stream = (new FakeRuntime())->willStream([['type' => 'start'], new StreamInterruptedException('gone', 1)])->streamRun('r1');
        $reported = null;
        $body = self::body(StreamProxy::response($stream, static function (Throwable $e) use (&$reported): void {
            $reported = $e;
        }));
        $this->assertSame("data: {\"type\":\"start\"}\nid: 1\n\ndata: {\"type\":\"error\",\"errorText\":\"" . StreamProxy::BROKEN . "\"}\n\n", $body);
        $this->assertInstanceOf(StreamInterruptedException::class, $reported);
    }

    private static function body(Symfony\Component\HttpFoundation\Response $response): string
    {
        $body = '';
        ob_start(static function (string $bytes) use (&$body): string {
            $body .= $bytes;

            return '';
        });
        $response->sendContent();
        ob_end_clean();

        return $body;
    }

    private function app(array $elixir, string $driver = 'legacy'): Application
    {
        $app = new Application(sys_get_temp_dir());
        $app->instance('config', new Repository(['runtime' => ['driver' => $driver]]));
        $provider = new RuntimeServiceProvider($app);
        $provider->register();
        $provider->boot();
        foreach ($elixir as $key => $value) {
            $app->make('config')->set('runtime.elixir.' . $key, $value);
        }

        return $app;
    }

    private static function peek(object $of, string $property): mixed
    {
        $p = new ReflectionProperty($of, $property);
        $p->setAccessible(true);

        return $p->getValue($of);
    }
}

final class Tokens
{
    private int $made = 0;

    public function __invoke(): string
    {
        return 'jwt-' . ++$this->made;
    }
}
