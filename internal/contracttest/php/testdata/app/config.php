<?php

declare(strict_types=1);

return [
    'name' => 'browser-facing application',
    'env' => 'production',
    'debug' => true,
    'timezone' => 'UTC',
    'locale' => 'en',
    'providers' => [],
    'aliases' => [],
];
