// The step: runs `wharfinger run`, passes signals on, and reports its result.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const report = require('./report');
const request = require('./request');
const runner = require('./runner');

/** Milliseconds between looks at our own parent. */
const LOOK = 1000;
/** Milliseconds in which further signals are echoes of the first. The program ends at once on a second one. */
const ECHO = 4000;

/** The result file; null if there is none, or none that can be read. */
function readResult(file) {
  try {
    const result = JSON.parse(fs.readFileSync(file, 'utf8'));
    return result && result.version === 1 ? result : null;
  } catch {
    return null;
  }
}

/** Sets the outputs and writes the summary. The program itself has annotated its end. */
function tell(result, file) {
  for (const [name, value] of [
    ['exit-code', result.exit_code],
    ['ended', result.ended],
    ['fault', result.fault],
    ['retry', result.retry],
    ['lease', result.lease],
    ['resource', result.resource],
    ['attempts', result.attempts?.length ?? 0],
    ['result', file],
  ]) {
    runner.output(name, value);
  }
  runner.summary(report.summary(result));
}

/** Runs the program; resolves to its exit code. */
function run(program, args, env) {
  return new Promise((resolve) => {
    // Without a shell: no input becomes part of a script. In a session of its own: a signal to the group of this process reaches
    // the program once, by us. Twice, it would end without a release.
    const child = spawn(program, args, { env, stdio: ['ignore', 'inherit', 'inherit'], detached: true });
    if (child.pid !== undefined) {
      runner.saveState('pid', child.pid);
    }
    let first = 0;
    const pass = (signal) => {
      if (first === 0 || Date.now() - first > ECHO) {
        first ||= Date.now();
        child.kill(signal);
      }
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.on(signal, pass);
    }
    // A runner that was killed cannot cancel any more.
    const parent = process.ppid;
    const look = setInterval(() => {
      if (process.ppid !== parent) {
        clearInterval(look);
        pass('SIGTERM');
      }
    }, LOOK);
    child.on('error', (error) => {
      clearInterval(look);
      const missing = error.code === 'ENOENT';
      const text = missing
        ? `${program} is not on this runner: install it, or give its path as input program`
        : `${program} cannot be started: ${error.message}`;
      runner.annotate('error', 'wharfinger', text);
      resolve(missing ? 127 : 126);
    });
    child.on('exit', (code, signal) => {
      clearInterval(look);
      resolve(code ?? 128 + (os.constants.signals[signal] ?? 0));
    });
  });
}

async function main() {
  const env = process.env;
  const names = request.names(env);
  let args;
  try {
    args = request.argumentsOf(env, names);
  } catch (error) {
    if (!(error instanceof request.InputError)) {
      throw error;
    }
    runner.annotate('error', 'wharfinger', error.message);
    process.exitCode = 2;
    return;
  }
  const folder = fs.mkdtempSync(path.join(env.RUNNER_TEMP || os.tmpdir(), 'wharfinger-'));
  const file = path.join(folder, 'result.json');
  const program = request.input(env, 'program') || 'wharfinger';
  // Before anything is leased, so that the post step finds the lease whatever happens to this process.
  for (const [name, value] of [['program', program], ['request', names.requestId], ['holder', names.holder], ['result', file]]) {
    runner.saveState(name, value);
  }
  process.exitCode = await run(program, args, request.environmentOfRun(env, file));
  const result = readResult(file);
  if (result) {
    tell(result, file);
  } else if (process.exitCode !== 0) {
    runner.annotate('error', 'wharfinger', `the program ended with ${process.exitCode} and left no result: see its messages above`);
  }
}

if (require.main === module) {
  main();
}

module.exports = { readResult };
