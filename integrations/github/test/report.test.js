'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { cell, headline, summary } = require('../src/report');

const RESULT = {
  version: 1, ended: 'command', exits_with: 3, exit_code: 3, signal: null, fault: 'UNDECIDED', fault_detail: '', retry: false, error: null,
  why: 'wharfinger why lse_1', attempts: [{ attempt: 1, machine: 'b1', lease: 'lse_1', state: 'RELEASED', finding: { fault: 'UNDECIDED' }, why_ended: 'exit code 3' }],
};

test('each fault has a sentence of its own, and one of a later version is read as undecided', () => {
  const faults = ['NONE', 'WORK', 'RESOURCE', 'UNDECIDED', 'OPEN', 'REQUEST', 'SERVICE'];
  assert.equal(new Set(faults.map((fault) => headline({ ...RESULT, fault }))).size, 7);
  assert.equal(headline({ ...RESULT, fault: 'RESOURCE', fault_detail: 'GIT_DIR_MISSING' }), 'the machine is at fault: GIT_DIR_MISSING');
  assert.equal(headline({ ...RESULT, fault: 'MOON' }), headline(RESULT));
});

test('a plain success leaves the summary alone, and a success by a second attempt does not', () => {
  const good = { ...RESULT, fault: 'NONE', exits_with: 0, exit_code: 0 };
  assert.equal(summary(good), '');
  assert.match(summary({ ...good, attempts: [RESULT.attempts[0], RESULT.attempts[0]] }), /### Wharfinger/);
});

test('texts of hosts mean nothing in Markdown or HTML', () => {
  const text = 'a|b\n<img src=x onerror=y> [x](http://e) `c` **d** @team #1';
  const shown = cell(text);
  assert.doesNotMatch(shown, /[|\n<>[\]()`*@]/);
  const page = summary({ ...RESULT, attempts: [{ ...RESULT.attempts[0], why_ended: text }] });
  assert.equal(page.split('\n').filter((line) => line.startsWith('| 1 |'))[0].split(' | ').length, 6);
});
