<?php

declare(strict_types=1);

// Reads the stream of run RUN, TIMES times over, or of cut-0 … cut-<CUTS-1>, and
// tells each thing that comes as one line of JSON. START starts the run first, with
// this message.

use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\Exception\RuntimeApiException;
use OpenAgents\Runtime\Exception\RuntimeClientException;
use OpenAgents\Runtime\Exception\StaleCursorException;
use OpenAgents\Runtime\Exception\StreamInterruptedException;
use OpenAgents\Runtime\Model\AppendFrameRequest;
use OpenAgents\Runtime\Model\StartRunRequest;
use OpenAgents\Runtime\Principal;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;

require __DIR__ . '/autoload.php';

$tell = static function (array $what): void {
    fwrite(STDOUT, json_encode($what, JSON_THROW_ON_ERROR) . "\n");
    fflush(STDOUT);
};
$client = RuntimeClient::create(
    new ClientOptions(
        (string) getenv('BASE_URL'),
        streamIdleTimeoutMs: (int) (getenv('IDLE_MS') ?: 20_000),
        backoffMs: 1,
        maxBackoffMs: 20,
    ),
    Signer::fromKeyring((string) getenv('SECRET')),
);
$cuts = (int) getenv('CUTS');
$times = (int) (getenv('TIMES') ?: 1);
$run = getenv('RUN') ?: 'r1';
$runs = $cuts > 0
    ? array_map(static fn (int $cut): string => 'cut-' . $cut, range(0, $cuts - 1))
    : array_fill(0, $times, $run);
$as = CallOptions::for(Principal::user(7));
$cursor = getenv('CURSOR') !== false ? (int) getenv('CURSOR') : ($cuts > 0 ? 0 : null);

try {
    if (getenv('START') !== false) {
        $client->startRun(new StartRunRequest(runId: $run, threadId: 'thread-' . $run, authenticatedSession: true, userId: 7), $as);
        $client->appendFrame($run, new AppendFrameRequest(frameId: 'f1', type: 'user_message', payload: ['text' => getenv('START')]), $as);
    }
    foreach ($runs as $run) {
        $stream = $client->streamRun($run, cursor: $cursor, options: $as);
        if ($stream->isEmpty()) {
            $tell(['empty' => true]);
        }
        if (getenv('MODE') === 'bytes') {
            foreach ($stream->bytes() as $bytes) {
                $tell(['bytes' => $bytes]);
            }
        } else {
            foreach ($stream->parts() as $part) {
                $data = getenv('QUIET') ? ['bytes' => strlen($part->data['delta'] ?? '')] : $part->data;
                $tell(['part' => ['id' => $part->id, 'type' => $part->type, 'data' => (object) $data]]);
            }
        }
        if (count($runs) > 1) {
            $tell(['end' => true, 'cursor' => $stream->cursor()]);
        }
    }
    $tell(['end' => true, 'cursor' => $stream->cursor()]);
} catch (RuntimeClientException $e) {
    $tell([
        'error' => $e::class,
        'code' => $e instanceof RuntimeApiException ? $e->errorCode : '',
        'status' => $e instanceof RuntimeApiException ? $e->status : 0,
        'cursor' => $e instanceof StreamInterruptedException ? $e->cursor : null,
        'floor' => $e instanceof StaleCursorException ? $e->floor() : 0,
        'restart' => $e instanceof StaleCursorException ? $e->restartCursor() : 0,
        'url' => $e instanceof StaleCursorException ? $e->snapshotUrl() : '',
    ]);
}
