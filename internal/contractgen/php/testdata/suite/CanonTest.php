<?php

declare(strict_types=1);

use OpenAgents\Runtime\Canon;
use PHPUnit\Framework\TestCase;

final class CanonTest extends TestCase
{
    public function vectors(): iterable
    {
        foreach (fixture('schemas/ds/fixtures/canon.json') as $i => $v) {
            yield $i . ' ' . $v['name'] => [$v];
        }
    }

    /** @dataProvider vectors */
    public function testTheSameAsTheService(array $v): void
    {
        $text = $v['text'] ?? base64_decode($v['text_base64'], true);
        if ($v['error'] ?? false) {
            $this->expectException(UnexpectedValueException::class);
        }
        $out = Canon::json($text);
        $this->assertSame($v['canonical'], $out);
        $this->assertSame($v['sha256'], Canon::digest($out));
        $this->assertSame($out, Canon::json($out));
    }

    public function testTheChainIsTheServices(): void
    {
        $prev = null;
        foreach (fixture('schemas/ds/fixtures/event_chain.json') as $v) {
            $payload = Canon::json($v['payload']);
            $this->assertSame($v['canonical_payload'], $payload);
            $this->assertSame($v['content_hash'], Canon::digest($payload));
            $this->assertSame($v['prev_hash'], $prev ?? Canon::firstPrevHash($v['run_id']));
            $prev = Canon::eventHash($v['run_id'], (int) $v['seq'], $v['event_type'], $v['event_version'], $v['content_hash'], $v['prev_hash']);
            $this->assertSame($v['event_hash'], $prev);
        }
        $this->assertNotNull($prev);
    }

    public function testNumbersDoNotDependOnSettings(): void
    {
        $before = ini_set('serialize_precision', '17');
        try {
            $this->assertSame('[0.1,5e-324,5.684341886080802e-14]', Canon::encode([0.1, 5e-324, 2 ** -44]));
            $this->assertSame('17', ini_get('serialize_precision'));
        } finally {
            ini_set('serialize_precision', (string) $before);
        }
    }

    public function testValuesOfPHP(): void
    {
        $this->assertSame('{"a":{},"b":[],"c":"é/"}', Canon::encode(['c' => 'é/', 'b' => [], 'a' => new stdClass()]));
        $this->expectException(UnexpectedValueException::class);
        Canon::encode("\xff");
    }
}
