// Follows a run with a chat that answers what it is asked: it says to the chat and
// to the server at `answers` that a person approves, or not, each call, and what
// the calls that a client carries out come to.
import * as ai from 'ai';
import * as ai6 from 'ai-6-strict';
import { answer, input } from './lib.mjs';

const { AbstractChat, DefaultChatTransport } = input.parts === 'ai6' ? ai6 : ai;

class Chat extends AbstractChat {}

class State {
  status = 'ready';
  error = undefined;
  #messages = [];
  get messages() {
    return this.#messages;
  }
  set messages(messages) {
    this.#messages = messages;
  }
  pushMessage = (message) => {
    this.#messages.push(message);
    look(message);
  };
  popMessage = () => this.#messages.pop();
  replaceMessage = (index, message) => {
    this.#messages[index] = message;
    look(message);
  };
  snapshot = (value) => structuredClone(value);
}

const post = (what, body) => fetch(`${input.answers}/${what}`, { method: 'POST', body: JSON.stringify(body) });
const answered = new Set();
const states = [];
const statesOf = {};
const work = [];
const called = [];
let sent = 0;

function look(message) {
  for (const part of message.parts) {
    if (part.type !== 'dynamic-tool') continue;
    if (states.at(-1) !== part.state) states.push(part.state);
    const own = (statesOf[part.toolName] ??= []);
    if (own.at(-1) !== part.state) own.push(part.state);
    if (part.state === 'approval-requested' && !answered.has(part.approval.id)) {
      answered.add(part.approval.id);
      work.push(decide(part.approval.id));
    }
  }
}

async function decide(approvalId) {
  await chat.addToolApprovalResponse({ id: approvalId, approved: input.approved });
  await post('decision', { approvalId, approved: input.approved });
}

/** Carries a client tool out, when the test says what it comes to. */
async function bring({ toolCallId, toolName }) {
  const output = input.outputs?.[toolName];
  if (output === undefined) return;
  await post('result', { toolCallId, output });
  await chat.addToolOutput({ tool: toolName, toolCallId, output });
}

const state = new State();
const chat = new Chat({
  id: input.runId,
  state,
  transport: new DefaultChatTransport({
    api: input.api,
    prepareReconnectToStreamRequest: ({ id }) => ({ api: `${input.api}/${encodeURIComponent(id)}/stream?parts=${input.parts}` }),
    prepareSendMessagesRequest: () => {
      sent++;
      throw new Error('the chat sends by itself');
    },
  }),
  sendAutomaticallyWhen: (options) => (input.parts === 'ai6' ? ai6 : ai).lastAssistantMessageIsCompleteWithApprovalResponses(options),
  onToolCall: ({ toolCall }) => {
    called.push(toolCall.toolName);
    work.push(bring(toolCall));
  },
});

await chat.resumeStream();
await Promise.all(work);

answer({ status: state.status, error: state.error?.message ?? '', messages: state.messages, states, statesOf, called, sent });
