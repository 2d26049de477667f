'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { spawnSync } = require('node:child_process');
const runner = require('../src/runner');
const { allEnded, ofStep } = require('../src/post');

test('a value with line ends sets no other output', () => {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'wharfinger-test-')), 'out');
  process.env.GITHUB_OUTPUT = file;
  runner.output('fault', 'WORK\nend\nlease<<x\nlse_1');
  const [head, ...rest] = fs.readFileSync(file, 'utf8').split('\n');
  assert.match(head, /^fault<<end-[0-9a-f-]{36}$/);
  assert.equal(rest.at(-2), head.slice('fault<<'.length));
  fs.rmSync(path.dirname(file), { recursive: true });
});

test('a text cannot end its workflow command', () => {
  assert.equal(runner.message('a%\r\nb'), 'a%25%0D%0Ab');
  assert.equal(runner.property('a:b,c\n'), 'a%3Ab%2Cc%0A');
});

test('the post step takes the live leases of its own step and no others', () => {
  const lease = (id, request_id, state) => ({ id, request_id, state });
  const document = { leases: [
    lease('1', 'gh-1-a', 'BROKEN'), lease('2', 'gh-1-a-2', 'ACTIVE'), lease('3', 'gh-1-a-x', 'ACTIVE'), lease('4', 'gh-1-ab', 'ACTIVE'), lease('5', 'gh-1-a', 'QUEUED'),
    lease('6', 'x-gh-1-a', 'ACTIVE'),
  ] };
  assert.deepEqual(ofStep(document, 'gh-1-a'), ['2', '5']);
  assert.equal(allEnded(null), false);
  assert.equal(allEnded({ attempts: [{ state: 'BROKEN' }, { state: 'RELEASED' }] }), true);
  assert.equal(allEnded({ attempts: [{ state: 'BROKEN' }, { state: 'ACTIVE' }] }), false);
});

test('a program that is missing, and a mistake, end the step with a message', () => {
  const temp = fs.mkdtempSync(path.join(os.tmpdir(), 'wharfinger-test-'));
  const step = (env) => spawnSync(process.execPath, [path.join(__dirname, '../src/main.js')], {
    env: { PATH: process.env.PATH, RUNNER_TEMP: temp, INPUT_COMMAND: 'true', INPUT_SHELL: 'sh -c', INPUT_POOL: 'p', ...env }, encoding: 'utf8',
  });
  const missing = step({ INPUT_PROGRAM: '/nowhere/wharfinger' });
  assert.equal(missing.status, 127);
  assert.match(missing.stdout, /^::error title=wharfinger::\/nowhere\/wharfinger is not on this runner/m);
  const mistake = step({ INPUT_POOL: '' });
  assert.equal(mistake.status, 2);
  assert.match(mistake.stdout, /input pool/);
  const silent = step({ INPUT_PROGRAM: '/bin/false' });
  assert.equal(silent.status, 1);
  assert.match(silent.stdout, /left no result/);
  fs.rmSync(temp, { recursive: true });
});
