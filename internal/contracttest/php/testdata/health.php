<?php

declare(strict_types=1);

// Asks for the health TIMES times and tells each answer as one line of JSON.

use OpenAgents\Runtime\CallOptions;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\ResponseInfo;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;

require __DIR__ . '/autoload.php';

$client = RuntimeClient::create(
    new ClientOptions((string) getenv('BASE_URL'), backoffMs: 1),
    Signer::fromKeyring((string) getenv('SECRET')),
);
for ($i = 0; $i < (int) getenv('TIMES'); ++$i) {
    $attempts = 0;
    $health = $client->health(new CallOptions(onResponse: static function (ResponseInfo $info) use (&$attempts): void {
        $attempts = $info->attempts;
    }));
    fwrite(STDOUT, json_encode(['version' => $health->version, 'attempts' => $attempts], JSON_THROW_ON_ERROR) . "\n");
}
