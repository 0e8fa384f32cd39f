<?php

declare(strict_types=1);

// A Laravel application as small as one can be: its kernel, its package
// discovery, and routes that answer from the runtime.

use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Http\Kernel as HttpKernel;
use Illuminate\Foundation\Application;
use Illuminate\Foundation\Exceptions\Handler;
use Illuminate\Foundation\Http\Kernel;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\Exception\RuntimeClientException;
use OpenAgents\Runtime\Laravel\StreamProxy;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\FrameSource;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\Runtime;

// Laravel 8 on PHP 8.2 speaks of deprecations of its own.
error_reporting(E_ALL & ~E_DEPRECATED);
require __DIR__ . '/../autoload.php';

$app = new Application((string) getenv('APP_BASE'));
$app->singleton(HttpKernel::class, Kernel::class);
$app->singleton(ExceptionHandler::class, Handler::class);

$legacy = static fn () => new Response('the legacy answer');
$as = CallOptions::for(Principal::user(7));

$app->make('router')->get('/stream/{runId}', static function (Request $request, Runtime $runtime, string $runId) use ($as, $legacy) {
    $last = $request->header('Last-Event-ID');
    try {
        $stream = $runtime->streamRun($runId, lastEventId: $last === null ? null : (int) $last, options: $as);
    } catch (RuntimeClientException) {
        return $legacy();
    }

    return StreamProxy::response($stream);
});

$app->make('router')->post('/chat/{threadId}', static function (Request $request, Runtime $runtime, string $threadId) use ($as, $legacy) {
    try {
        $run = $runtime->startRun(new StartRunRequest(
            runId: (string) $request->input('runId'), threadId: $threadId, authenticatedSession: true, userId: 7,
        ), $as);
        $frame = $runtime->appendFrame($run->runId, new AppendFrameRequest(
            frameId: (string) $request->input('messageId'), type: 'user_message',
            payload: ['text' => (string) $request->input('text')], source: new FrameSource(kind: 'laravel_api'),
        ), $as);
        $stream = $runtime->streamRun($run->runId, cursor: $frame->seq, options: $as);
    } catch (RuntimeClientException) {
        return $legacy();
    }

    return StreamProxy::response($stream);
});

$kernel = $app->make(HttpKernel::class);
$response = $kernel->handle($request = Request::capture());
$response->send();
$kernel->terminate($request, $response);
