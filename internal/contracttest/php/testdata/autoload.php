<?php

declare(strict_types=1);

// Debian's packages and the generated package under GENERATED, without Composer.
// Guzzle first: Illuminate's own autoloader asks for it under a misspelled path.
require_once 'GuzzleHttp/autoload.php';
require_once 'Illuminate/autoload.php';

spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'OpenAgents\\Runtime\\')) {
        $path = getenv('GENERATED') . '/src/' . strtr(substr($class, 19), '\\', '/') . '.php';
        if (is_file($path)) {
            require $path;
        }
    }
});
