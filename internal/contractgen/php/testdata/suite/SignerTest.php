<?php

declare(strict_types=1);

use OpenAgents\Runtime\Signer;
use PHPUnit\Framework\TestCase;

final class SignerTest extends TestCase
{
    private const SECRET = '0123456789abcdef0123456789abcdef';

    public function vectors(): iterable
    {
        foreach (fixture('openapi/fixtures/auth/token.json') as $v) {
            yield $v['name'] => [$v];
        }
    }

    /** @dataProvider vectors */
    public function testTheTokenIsTheServices(array $v): void
    {
        $c = json_decode($v['claims'], true, 512, JSON_THROW_ON_ERROR);
        $signer = new Signer(
            $v['kid'], $v['secret'], $c['aud'], $c['exp'] - $c['iat'],
            static fn (): int => $c['iat'], static fn (): string => $c['nonce'],
        );
        $this->assertSame($v['token'], $signer->sign(
            $v['method'], $v['target'], $v['body'], $c['scope'], $c['actor'],
            $c['run_id'] ?? null, $c['thread_id'] ?? null, $c['user_id'] ?? null, $c['guest_scope'] ?? null,
        ));
    }

    public function testEachTokenHasItsOwnNonce(): void
    {
        $signer = Signer::fromKeyring('k1:' . self::SECRET);
        $this->assertNotSame($signer->sign('GET', '/', '', 'read', 'a'), $signer->sign('GET', '/', '', 'read', 'a'));
    }

    public function testTheFirstOfAKeyringSigns(): void
    {
        $signer = Signer::fromKeyring('k2:' . self::SECRET . ':x, k1:' . strrev(self::SECRET));
        $this->assertSame('k2', $signer->keyId);
        [, $claims, $signature] = explode('.', $signer->sign('GET', '/', '', 'read', 'a'));
        $mac = hash_hmac('sha256', $claims, self::SECRET . ':x', true);
        $this->assertSame(rtrim(strtr(base64_encode($mac), '+/', '-_'), '='), $signature);
    }

    /** @dataProvider unfit */
    public function testWhatTheServiceWouldRefuseIsNotSigned(Closure $make): void
    {
        try {
            $make();
        } catch (InvalidArgumentException $e) {
            $this->assertStringNotContainsString(self::SECRET, $e->getMessage());

            return;
        }
        $this->fail('no exception');
    }

    public function unfit(): iterable
    {
        yield 'nothing' => [static fn () => Signer::fromKeyring('')];
        yield 'no kid' => [static fn () => Signer::fromKeyring(self::SECRET)];
        yield 'an odd kid' => [static fn () => Signer::fromKeyring('k 1:' . self::SECRET)];
        yield 'a short secret' => [static fn () => Signer::fromKeyring('k1:' . substr(self::SECRET, 1))];
        yield 'a long life' => [static fn () => new Signer('k1', self::SECRET, ttlSeconds: 301)];
        yield 'no life' => [static fn () => new Signer('k1', self::SECRET, ttlSeconds: 0)];
    }

    public function testADumpHasNoSecret(): void
    {
        ob_start();
        var_dump(Signer::fromKeyring('k1:' . self::SECRET));
        $this->assertStringNotContainsString(self::SECRET, (string) ob_get_clean());
    }
}
