// The request: from the inputs and the environment of the step to the command line of `wharfinger run`.
'use strict';

const { createHash, randomBytes } = require('node:crypto');

/** A mistake in the inputs. Its message names the input and how to mend it. */
class InputError extends Error {}

/** An input; empty if it was not given. */
function input(env, name) {
  return (env[`INPUT_${name.replace(/ /g, '_').toUpperCase()}`] ?? '').trim();
}

/** The lines of an input that are not empty. */
function lines(env, name) {
  return input(env, name).split('\n').map((line) => line.trim()).filter((line) => line !== '');
}

/** The lines of an input, each KEY=VALUE. */
function pairs(env, name) {
  return lines(env, name).map((line) => {
    if (!/^[^=]+=/.test(line)) {
      throw new InputError(`input ${name}: "${line}" is not KEY=VALUE; write one pair a line`);
    }
    return line;
  });
}

/** The job of a matrix in words, as in `os=linux,rust=1.85`; empty without a matrix. */
function matrixKey(text) {
  if (text === '' || text === 'null') {
    return '';
  }
  let matrix;
  try {
    matrix = JSON.parse(text);
  } catch {
    return text;
  }
  if (matrix === null || typeof matrix !== 'object') {
    return String(matrix ?? '');
  }
  const word = (value) => (typeof value === 'object' ? JSON.stringify(value) : String(value));
  return Object.keys(matrix).sort().map((key) => `${key}=${word(matrix[key])}`).join(',');
}

/** At most 110 characters that an id may have; a longer text keeps its beginning, and a hash of all of it. */
function id(text) {
  const clean = text.replace(/[^A-Za-z0-9._=,@/-]/g, '_');
  if (clean === text && text.length <= 110) {
    return text;
  }
  const hash = createHash('sha256').update(text).digest('hex').slice(0, 16);
  return `${clean.slice(0, 93)}-${hash}`;
}

/**
 * Names of the request. The work is the same each time it is tried. The request id is of this one run of the step: steps inside of composite
 * actions may share a name.
 * @returns {{requestId: string, holder: string, work: string}}
 */
function names(env) {
  const get = (name) => env[name] ?? '';
  const key = matrixKey(input(env, 'matrix'));
  const step = get('GITHUB_ACTION');
  const run = `${get('GITHUB_RUN_ID')}-${get('GITHUB_RUN_ATTEMPT') || '1'}`;
  const parts = [get('GITHUB_REPOSITORY'), get('GITHUB_WORKFLOW'), get('GITHUB_JOB'), key, step].filter((part) => part !== '');
  return {
    requestId: `${id(['gh', run, get('GITHUB_JOB'), key, step].filter((part) => part !== '').join('-'))}-${randomBytes(4).toString('hex')}`,
    holder: `${get('GITHUB_SERVER_URL') || 'https://github.com'}/${get('GITHUB_REPOSITORY')}/actions/runs/${get('GITHUB_RUN_ID')}`,
    work: input(env, 'work') || `${parts.join('/')}@${get('GITHUB_SHA')}`,
  };
}

/**
 * Arguments of `wharfinger`.
 * @throws {InputError}
 */
function argumentsOf(env, { requestId, holder, work }) {
  const command = env.INPUT_COMMAND ?? '';
  if (command.trim() === '') {
    throw new InputError('input command: it is empty; give the lines to run on the leased host');
  }
  const shell = input(env, 'shell').split(/\s+/).filter((word) => word !== '');
  if (shell.length === 0) {
    throw new InputError('input shell: it is empty; the default is "sh -e -c"');
  }
  const labels = pairs(env, 'labels');
  if (input(env, 'pool') === '' && labels.length === 0) {
    throw new InputError('input pool: neither pool nor labels is given; one of them says what to lease');
  }
  const args = ['run', `--request-id=${requestId}`, `--holder=${holder}`, `--work=${work}`];
  const one = (option, name) => {
    const value = input(env, name);
    if (value !== '') {
      args.push(`--${option}=${value}`);
    }
  };
  one('pool', 'pool');
  labels.forEach((label) => args.push(`--label=${label}`));
  const places = ['branch', 'ref'].filter((name) => input(env, name) !== '');
  if (places.length > 1) {
    throw new InputError('input ref: branch and ref are both given; a working copy has one of them');
  }
  one(places[0] ?? 'commit', places[0] ?? 'commit');
  for (const name of ['retries', 'ttl', 'queue-for', 'expected', 'timeout']) {
    one(name, name);
  }
  pairs(env, 'env').forEach((pair) => args.push(`--env=${pair}`));
  lines(env, 'put').forEach((line) => args.push(`--put=${line}`));
  const patterns = lines(env, 'fetch');
  patterns.forEach((line) => args.push(`--fetch=${line}`));
  if (patterns.length > 0) {
    args.push(`--fetch-to=${input(env, 'fetch-to') || env.GITHUB_WORKSPACE || '.'}`);
  }
  args.push(...lines(env, 'options'), '--', ...shell, command);
  return args;
}

/** The environment of each call of `wharfinger`: that of the step, with its server. */
function environmentOf(env) {
  const server = input(env, 'server');
  return server === '' ? { ...env } : { ...env, WHARFINGER_SERVER: server };
}

/** The environment of `wharfinger run`, with what the contract of docs/ci.md sets by variables. */
function environmentOfRun(env, result) {
  const own = { ...environmentOf(env), WHARFINGER_RESULT: result, WHARFINGER_CI: env.WHARFINGER_CI || 'auto' };
  const grace = input(env, 'cancel-grace');
  return grace === '' ? own : { ...own, WHARFINGER_CANCEL_GRACE: grace };
}

module.exports = { InputError, argumentsOf, environmentOf, environmentOfRun, id, input, matrixKey, names };
