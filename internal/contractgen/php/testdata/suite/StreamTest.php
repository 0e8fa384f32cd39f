<?php

declare(strict_types=1);

use GuzzleHttp\Client;
use GuzzleHttp\Exception\ConnectException;
use GuzzleHttp\Handler\MockHandler;
use GuzzleHttp\HandlerStack;
use GuzzleHttp\Middleware;
use GuzzleHttp\Psr7\Request;
use GuzzleHttp\Psr7\Response;
use OpenAgents\Runtime\ClientOptions;
use OpenAgents\Runtime\Exception\ForbiddenException;
use OpenAgents\Runtime\Exception\StaleCursorException;
use OpenAgents\Runtime\Exception\StreamInterruptedException;
use OpenAgents\Runtime\RuntimeClient;
use OpenAgents\Runtime\Signer;
use OpenAgents\Runtime\Stream\RunStream;
use OpenAgents\Runtime\Stream\StreamPart;
use OpenAgents\Runtime\Transport;
use PHPUnit\Framework\TestCase;

final class StreamTest extends TestCase
{
    private const WHOLE = "retry: 100\n\ndata: {\"type\":\"start\"}\nid: 1\n\nid: 2\n\n: keep-alive\n\ndata: {\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"a\"}\nid: 3\n\ndata: {\"type\":\"finish\"}\nid: 4\n\ndata: [DONE]\nid: 5\n\n";

    private array $sent = [];
    private array $slept = [];

    /** Wherever the connection breaks, what is handed on in all is one undisturbed stream. */
    public function testACutAtEveryByteLosesAndDoublesNothing(): void
    {
        for ($cut = 0; $cut < \strlen(self::WHOLE); ++$cut) {
            $stream = $this->stream([self::sse(substr(self::WHOLE, 0, $cut)), fn (Request $r): Response => self::sse(self::after((int) $r->getHeaderLine('Last-Event-ID')))]);
            $parts = iterator_to_array($stream->parts(), false);
            $this->assertSame(['start', 'text-delta', 'finish', '[DONE]'], array_column($parts, 'type'), 'cut at ' . $cut);
            $this->assertSame([1, 3, 4, 5], array_column($parts, 'id'), 'cut at ' . $cut);
            $this->assertSame(5, $stream->cursor());
        }
    }

    /** A server that starts over from the beginning does not start the message over. */
    public function testWhatWasHandedOnIsNotHandedOnAgain(): void
    {
        $stream = $this->stream([self::sse(substr(self::WHOLE, 0, strpos(self::WHOLE, 'data: {"type":"finish"'))), self::sse(self::WHOLE)]);
        $bytes = implode('', iterator_to_array($stream->bytes(), false));
        $this->assertSame(1, substr_count($bytes, '"start"'));
        $this->assertSame(1, substr_count($bytes, '"text-delta"'));
        $this->assertStringEndsWith("data: [DONE]\nid: 5\n\n", $bytes);
    }

    public function testBytesAreTheServersInWholeBlocks(): void
    {
        $blocks = iterator_to_array($this->stream([self::sse(self::WHOLE . "data: more\n\n")])->bytes(), false);
        $this->assertSame(self::WHOLE, implode('', $blocks));
        foreach ($blocks as $block) {
            $this->assertStringEndsWith("\n\n", $block);
        }
    }

    public function testAResumeNamesTheLastEventAndNotTheQuery(): void
    {
        $stream = $this->stream([self::sse(substr(self::WHOLE, 0, -1)), self::sse("data: [DONE]\nid: 5\n\n")], cursor: 0);
        iterator_to_array($stream->parts(), false);
        $this->assertSame(['/internal/v1/runs/r1/stream?cursor=0', ''], [$this->sent[0]['request']->getRequestTarget(), $this->sent[0]['request']->getHeaderLine('Last-Event-ID')]);
        $this->assertSame(['/internal/v1/runs/r1/stream', '4'], [$this->sent[1]['request']->getRequestTarget(), $this->sent[1]['request']->getHeaderLine('Last-Event-ID')]);
        $this->assertNotSame($this->sent[0]['request']->getHeaderLine('X-OA-RUNTIME-SIGNATURE'), $this->sent[1]['request']->getHeaderLine('X-OA-RUNTIME-SIGNATURE'));
    }

    public function testACutBeforeAnyEventStartsWhereItStarted(): void
    {
        $stream = $this->stream([self::sse(": stream-open\n\n"), self::sse(self::after(2))], cursor: 2);
        $this->assertSame([3, 4, 5], array_column(iterator_to_array($stream->parts(), false), 'id'));
        $this->assertSame('2', $this->sent[1]['request']->getHeaderLine('Last-Event-ID'));
    }

    public function testTheFirstRequestIsSentAtOnce(): void
    {
        $this->stream([self::sse(self::WHOLE)]);
        $this->assertCount(1, $this->sent);
        $this->expectException(ForbiddenException::class);
        $this->stream([self::error(403, 'forbidden')]);
    }

    public function test204EndsAtOnceAndLater(): void
    {
        $stream = $this->stream([new Response(204)], cursor: 5);
        $this->assertTrue($stream->isEmpty());
        $this->assertSame([], iterator_to_array($stream->parts(), false));
        $stream = $this->stream([self::sse(substr(self::WHOLE, 0, -30)), new Response(204)]);
        $this->assertFalse($stream->isEmpty());
        $this->assertNotContains('[DONE]', array_column(iterator_to_array($stream->parts(), false), 'type'));
    }

    public function test410OnResumeIsThrown(): void
    {
        $stream = $this->stream([self::sse(substr(self::WHOLE, 0, -1)), self::error(410, 'stale_cursor')]);
        $this->expectException(StaleCursorException::class);
        iterator_to_array($stream->parts(), false);
    }

    public function testAServiceThatComesBackIsWaitedFor(): void
    {
        $refused = new ConnectException('refused', new Request('GET', '/'));
        $stream = $this->stream([self::sse(substr(self::WHOLE, 0, -1)), $refused, $refused, new Response(502), self::error(503, 'unavailable', ['Retry-After' => '3']), self::sse(self::after(4))]);
        $this->assertSame('[DONE]', array_column(iterator_to_array($stream->parts(), false), 'type')[3]);
        $this->assertCount(5, $this->slept);
        $this->assertLessThanOrEqual(101, $this->slept[0], 'the retry line says 100');
        $this->assertSame(3000, $this->slept[4]);
    }

    public function testReconnectingThatBringsNothingEnds(): void
    {
        foreach ([new ConnectException('refused', new Request('GET', '/')), self::sse(": stream-open\n\n")] as $nothing) {
            $stream = $this->stream([self::sse(substr(self::WHOLE, 0, -1)), ...array_fill(0, 50, $nothing)]);
            try {
                iterator_to_array($stream->parts(), false);
                $this->fail('no exception');
            } catch (StreamInterruptedException $e) {
                $this->assertSame(4, $e->cursor);
                $this->assertCount(1 + 10, $this->sent);
            }
        }
    }

    public function testProgressIsNotCountedAsFailure(): void
    {
        $whole = '';
        $answers = [];
        for ($i = 1; $i <= 40; ++$i) {
            $answers[] = self::sse("data: {\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"$i\"}\nid: $i\n\n");
        }
        $answers[] = self::sse("data: [DONE]\nid: 41\n\n");
        $this->assertCount(41, iterator_to_array($this->stream($answers)->parts(), false));
    }

    public function testAStreamIsReadOnce(): void
    {
        $stream = $this->stream([self::sse(self::WHOLE)]);
        iterator_to_array($stream->parts(), false);
        $this->expectException(LogicException::class);
        iterator_to_array($stream->parts(), false);
    }

    public function testWhoStopsReadingClosesTheConnection(): void
    {
        $response = self::sse(self::WHOLE);
        $stream = $this->stream([$response]);
        foreach ($stream->parts() as $part) {
            break;
        }
        unset($part);
        gc_collect_cycles();
        $this->assertFalse($response->getBody()->isReadable());
    }

    public function testWhatIsNotAPartIsNotSkipped(): void
    {
        $this->expectException(StreamInterruptedException::class);
        iterator_to_array($this->stream([self::sse("data: nonsense\nid: 1\n\n")])->parts(), false);
    }

    private static function sse(string $body): Response
    {
        return new Response(200, ['Content-Type' => 'text/event-stream'], $body);
    }

    private static function error(int $status, string $code, array $headers = []): Response
    {
        return new Response($status, $headers, json_encode(['error' => ['code' => $code, 'message' => 'm', 'details' => new stdClass(), 'requestId' => 'r']]));
    }

    /** The stream from after an event. */
    private static function after(int $id): string
    {
        if ($id === 0) {
            return self::WHOLE;
        }

        return substr(self::WHOLE, strpos(self::WHOLE, "id: $id\n\n") + \strlen("id: $id\n\n"));
    }

    private function stream(array $answers, ?int $cursor = null): RunStream
    {
        $this->sent = $this->slept = [];
        $stack = HandlerStack::create(new MockHandler($answers));
        $stack->push(Middleware::history($this->sent));
        $client = new RuntimeClient(new Transport(
            new ClientOptions('http://runtime:4000'), Signer::fromKeyring('k1:0123456789abcdef0123456789abcdef'),
            new Client(['handler' => $stack]),
            sleep: function (int $ms): void {
                $this->slept[] = $ms;
            },
        ));

        return $client->streamRun('r1', cursor: $cursor);
    }
}
