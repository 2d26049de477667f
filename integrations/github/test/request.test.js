'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { InputError, argumentsOf, environmentOfRun, id, matrixKey, names } = require('../src/request');

const STEP = {
  GITHUB_REPOSITORY: 'acme/web', GITHUB_WORKFLOW: 'ci', GITHUB_JOB: 'test', GITHUB_SHA: 'c0ffee', GITHUB_RUN_ID: '17', GITHUB_RUN_ATTEMPT: '2',
  GITHUB_ACTION: '__run', GITHUB_SERVER_URL: 'https://github.com', INPUT_SHELL: 'sh -e -c', INPUT_COMMAND: 'make\nmake test\n', INPUT_POOL: 'copies',
};

test('the work has the same name each time, and each run of a step has a request of its own', () => {
  const first = names(STEP);
  assert.match(first.requestId, /^gh-17-2-test-__run-[0-9a-f]{8}$/);
  assert.deepEqual([first.holder, first.work], ['https://github.com/acme/web/actions/runs/17', 'acme/web/ci/test/__run@c0ffee']);
  const again = names({ ...STEP, GITHUB_RUN_ATTEMPT: '3' });
  assert.equal(again.work, first.work);
  assert.notEqual(names(STEP).requestId, first.requestId);
});

test('the jobs of a matrix and the steps of a job have names of their own', () => {
  const jobs = ['{"os":"linux"}', '{"os":"mac"}'].map((matrix) => names({ ...STEP, INPUT_MATRIX: matrix }));
  assert.equal(new Set(jobs.map((job) => job.requestId)).size, 2);
  assert.equal(new Set(jobs.map((job) => job.work)).size, 2);
  assert.notEqual(names({ ...STEP, GITHUB_ACTION: '__run_2' }).requestId, names(STEP).requestId);
  assert.equal(matrixKey('{"rust":1.85,"os":{"name":"linux"}}'), 'os={"name":"linux"},rust=1.85');
  assert.equal(matrixKey('null'), '');
});

test('an id is short and plain, and two long texts that differ at their ends keep apart', () => {
  const long = 'x'.repeat(300);
  assert.equal(id('gh-1-a'), 'gh-1-a');
  assert.notEqual(id(`${long}a`), id(`${long}b`));
  assert.notEqual(id('a b'), id('a_b'));
  for (const text of [long, 'a b\n"c', 'é']) {
    assert.match(id(text), /^[A-Za-z0-9._=,@/-]{1,110}$/);
  }
});

test('the command is one argument as it is, and an input never becomes an option', () => {
  const args = argumentsOf({ ...STEP, INPUT_COMMAND: 'echo "$(id)"; x', INPUT_POOL: '--land main', INPUT_COMMIT: 'c0ffee', INPUT_RETRIES: '2' }, { ...names(STEP), requestId: 'r-1' });
  assert.deepEqual(args, [
    'run', '--request-id=r-1', '--holder=https://github.com/acme/web/actions/runs/17', '--work=acme/web/ci/test/__run@c0ffee',
    '--pool=--land main', '--commit=c0ffee', '--retries=2', '--', 'sh', '-e', '-c', 'echo "$(id)"; x',
  ]);
});

test('lists are one entry a line, and a branch takes the place of the commit', () => {
  const args = argumentsOf({
    ...STEP, INPUT_LABELS: 'os=linux\n\n arch=amd64 ', INPUT_ENV: 'A=1\nB=two words', INPUT_FETCH: 'out/*.xml', INPUT_PUT: 'a.txt:b.txt', INPUT_COMMIT: 'c0ffee',
    INPUT_BRANCH: 'main', GITHUB_WORKSPACE: '/w', INPUT_OPTIONS: '--priority=5',
  }, names(STEP));
  for (const arg of ['--label=os=linux', '--label=arch=amd64', '--env=A=1', '--env=B=two words', '--fetch=out/*.xml', '--fetch-to=/w', '--put=a.txt:b.txt', '--branch=main', '--priority=5']) {
    assert.ok(args.includes(arg), arg);
  }
  assert.ok(!args.some((arg) => arg.startsWith('--commit')));
});

test('a mistake in an input names the input', () => {
  for (const [change, text] of [
    [{ INPUT_COMMAND: ' ' }, /input command/], [{ INPUT_SHELL: '' }, /input shell/], [{ INPUT_POOL: '' }, /input pool/], [{ INPUT_LABELS: 'linux' }, /input labels: "linux"/],
    [{ INPUT_ENV: '=x' }, /input env/], [{ INPUT_BRANCH: 'a', INPUT_REF: 'b' }, /input ref/],
  ]) {
    assert.throws(() => argumentsOf({ ...STEP, ...change }, names(STEP)), (error) => error instanceof InputError && text.test(error.message));
  }
});

test('the contract is set by variables', () => {
  const env = environmentOfRun({ ...STEP, INPUT_SERVER: 'h:1', 'INPUT_CANCEL-GRACE': '5s', PATH: '/bin' }, '/r');
  assert.deepEqual([env.WHARFINGER_SERVER, env.WHARFINGER_CANCEL_GRACE, env.WHARFINGER_RESULT, env.WHARFINGER_CI, env.PATH], ['h:1', '5s', '/r', 'auto', '/bin']);
  assert.equal(environmentOfRun({ ...STEP, WHARFINGER_SERVER: 'own:1' }, '/r').WHARFINGER_SERVER, 'own:1');
});
