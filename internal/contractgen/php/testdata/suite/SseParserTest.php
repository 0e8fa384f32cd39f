<?php

declare(strict_types=1);

use OpenAgents\Runtime\Stream\SseBlock;
use OpenAgents\Runtime\Stream\SseParser;
use OpenAgents\Runtime\Stream\StreamPart;
use PHPUnit\Framework\TestCase;

final class SseParserTest extends TestCase
{
    private const STREAM = ": stream-open\n\nretry: 1500\n\ndata: {\"type\":\"start\"}\nid: 3\n\n: keep-alive\n\n"
        . "id: 4\n\nevent: message\ndata:{\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"grüße 😀\"}\nid:5\n\n"
        . "data: a\ndata: b\n\ndata: [DONE]\nid: 6\n\n";

    private const EXPECTED = [
        [null, null, null], [null, null, 1500], [3, '{"type":"start"}', null], [null, null, null], [4, null, null],
        [5, '{"type":"text-delta","id":"t","delta":"grüße 😀"}', null], [null, "a\nb", null], [6, '[DONE]', null],
    ];

    /** @dataProvider endings */
    public function testEveryPlaceOfACutGivesTheSame(string $ending): void
    {
        $stream = str_replace("\n", $ending, self::STREAM);
        for ($cut = 0; $cut <= \strlen($stream); ++$cut) {
            $parser = new SseParser();
            $blocks = [...$parser->push(substr($stream, 0, $cut)), ...$parser->push(substr($stream, $cut))];
            $this->assertSame(self::EXPECTED, self::facts($blocks), 'cut at ' . $cut);
            if ($ending === "\n") {
                $this->assertSame($stream, implode('', array_column($blocks, 'raw')), 'cut at ' . $cut);
            }
        }
    }

    /** @dataProvider endings */
    public function testByteByByte(string $ending): void
    {
        $parser = new SseParser();
        $blocks = [];
        foreach (str_split(str_replace("\n", $ending, self::STREAM)) as $byte) {
            array_push($blocks, ...$parser->push($byte));
        }
        $this->assertSame(self::EXPECTED, self::facts($blocks));
    }

    public function endings(): iterable
    {
        yield 'LF' => ["\n"];
        yield 'CRLF' => ["\r\n"];
        yield 'CR' => ["\r"];
    }

    public function testAnUnfinishedBlockIsNotHandedOn(): void
    {
        $parser = new SseParser();
        $this->assertSame([], $parser->push("data: {\"type\":\"start\"}\nid: 1\n"));
    }

    public function testIdsThatAreNoSeqAreNone(): void
    {
        $parser = new SseParser();
        foreach (['x', '-1', '1.5', '', "1\0", '99999999999999999'] as $id) {
            $this->assertNull($parser->push("id: $id\ndata: x\n\n")[0]->id, $id);
        }
    }

    public function testABlockWithoutEndIsRefused(): void
    {
        $parser = new SseParser();
        $this->expectException(UnexpectedValueException::class);
        for ($i = 0; $i < 20; ++$i) {
            $parser->push(str_repeat('x', 1 << 20));
        }
    }

    public function testBlocksBecomeParts(): void
    {
        $this->assertNull(StreamPart::fromBlock(new SseBlock(": x\n\n", null, null, null)));
        $part = StreamPart::fromBlock(new SseBlock('raw', 5, '{"type":"text-delta","delta":"a"}', null));
        $this->assertSame([5, 'text-delta', 'a', 'raw', false], [$part->id, $part->type, $part->data['delta'], $part->raw, $part->isDone()]);
        $this->assertTrue(StreamPart::fromBlock(new SseBlock('', 6, '[DONE]', null))->isDone());
        $this->expectException(UnexpectedValueException::class);
        StreamPart::fromBlock(new SseBlock('', 7, '{"no":"type"}', null));
    }

    /** @param list<SseBlock> $blocks */
    private static function facts(array $blocks): array
    {
        return array_map(static fn (SseBlock $b): array => [$b->id, $b->data, $b->retryMs], $blocks);
    }
}
