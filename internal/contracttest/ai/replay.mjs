// Follows a run with the chat of the newest release, over connections that are
// cut. After each cut the chat reads the run again from the beginning, as its
// transport does by default.
import { AbstractChat, DefaultChatTransport } from 'ai';
import { answer, CuttingFetch, input, reconnection } from './lib.mjs';

class Chat extends AbstractChat {}

class State {
  status = 'ready';
  error = undefined;
  messages = [];
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = message);
  snapshot = (value) => structuredClone(value);
}

const cutting = new CuttingFetch();
const state = new State();
const finishes = [];
const chat = new Chat({
  id: input.runId,
  state,
  transport: new DefaultChatTransport({ api: input.api, fetch: cutting.fetch, ...reconnection }),
  onFinish: ({ isDisconnect, isError, finishReason }) => finishes.push({ isDisconnect, isError, finishReason }),
});

for (let i = 0; i <= input.cuts.length; i++) await chat.resumeStream();

answer({
  status: state.status,
  error: state.error?.message ?? '',
  messages: state.messages,
  finishes,
  requests: cutting.requests,
});
