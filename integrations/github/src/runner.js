// The runner's side: commands on standard output, and files for state, outputs and the summary.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');

/** Text as the message of a workflow command. */
function message(text) {
  return String(text).replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
}

/** Text as a property of a workflow command. */
function property(text) {
  return message(text).replace(/:/g, '%3A').replace(/,/g, '%2C');
}

/** Writes an annotation. `level`: error, warning, notice. */
function annotate(level, title, text) {
  process.stdout.write(`::${level} title=${property(title)}::${message(text)}\n`);
}

/**
 * Appends NAME=VALUE to the runner's file that the variable names. The delimiter is random, so that no value ends it.
 * A runner without such files (Gitea before 1.20) gets the old command.
 */
function put(variable, command, name, value) {
  const file = process.env[variable];
  const text = String(value ?? '');
  if (!file) {
    process.stdout.write(`::${command} name=${property(name)}::${message(text)}\n`);
    return;
  }
  const end = `end-${crypto.randomUUID()}`;
  fs.appendFileSync(file, `${name}<<${end}\n${text}\n${end}\n`);
}

/** Sets an output of the step. */
function output(name, value) {
  put('GITHUB_OUTPUT', 'set-output', name, value);
}

/** Keeps a text for the post step. */
function saveState(name, value) {
  put('GITHUB_STATE', 'save-state', name, value);
}

/** A text that the main step has kept; empty if there is none. */
function state(name) {
  return process.env[`STATE_${name}`] ?? '';
}

/** Appends Markdown to the summary of the job, where the runner has one. */
function summary(markdown) {
  if (process.env.GITHUB_STEP_SUMMARY) {
    fs.appendFileSync(process.env.GITHUB_STEP_SUMMARY, markdown);
  }
}

module.exports = { annotate, message, output, property, saveState, state, summary };
