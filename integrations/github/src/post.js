// The post step: releases what the step left behind when it was killed. It changes nothing about the job's status.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { setTimeout } = require('node:timers/promises');
const { readResult } = require('./main');
const request = require('./request');
const runner = require('./runner');

/** Milliseconds for one call of the program. */
const PATIENCE = 10_000;
/** States of a lease that still holds something, or waits for it. */
const LIVE = ['QUEUED', 'PREPARING', 'ACTIVE'];

/** Whether the result says that each lease has ended. */
function allEnded(result) {
  return result !== null && !result.attempts.some((attempt) => LIVE.includes(attempt.state));
}

/** Ids of the live leases of this step, from the document of `wharfinger ls`. Later attempts have the request id with -2, -3, … */
function ofStep(document, requestId) {
  const ours = (id) => id === requestId || (id.startsWith(requestId) && /^-[0-9]+$/.test(id.slice(requestId.length)));
  return document.leases.filter((lease) => LIVE.includes(lease.state) && ours(lease.request_id)).map((lease) => lease.id);
}

/** Whether this process is the program that the step started: its command line has the request id. */
function isOurs(pid, requestId) {
  const line = spawnSync('ps', ['-o', 'args=', '-p', pid], { encoding: 'utf8' }).stdout ?? '';
  return line.includes(`--request-id=${requestId} `);
}

/** Ends the program in good order if it has outlived its step, and waits until it is gone, or for PATIENCE. */
async function endProgram(pid, requestId) {
  if (!/^[0-9]+$/.test(pid) || !isOurs(pid, requestId)) {
    return;
  }
  process.kill(Number(pid), 'SIGTERM');
  const end = Date.now() + PATIENCE;
  while (Date.now() < end && isOurs(pid, requestId)) {
    await setTimeout(100);
  }
}

function call(program, args) {
  const done = spawnSync(program, args, { env: request.environmentOf(process.env), encoding: 'utf8', timeout: PATIENCE });
  if (done.error || done.status !== 0) {
    throw new Error((done.error?.message ?? done.stderr.trim()) || `exit code ${done.status}`);
  }
  return done.stdout;
}

async function main() {
  const [program, requestId, holder, file, pid] = ['program', 'request', 'holder', 'result', 'pid'].map(runner.state);
  if (requestId === '') {
    return;
  }
  try {
    await endProgram(pid, requestId);
  } catch (error) {
    runner.annotate('warning', 'wharfinger', `the step's program could not be ended: ${error.message}`);
  }
  const done = allEnded(readResult(file));
  fs.rmSync(path.dirname(file), { recursive: true, force: true });
  if (done) {
    return;
  }
  try {
    const document = JSON.parse(call(program, ['--json', 'ls', '--holder', holder]));
    for (const lease of ofStep(document, requestId)) {
      call(program, ['release', lease, '--outcome', 'abandoned', '--note', 'the step was cut off']);
      process.stdout.write(`lease ${lease} was left by the step, and is released\n`);
    }
  } catch (error) {
    runner.annotate('warning', 'wharfinger', `the step's lease may still be held, and then ends by its TTL: ${error.message}`);
  }
}

if (require.main === module) {
  main();
}

module.exports = { allEnded, ofStep };
