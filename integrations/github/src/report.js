// What people read in the summary of the job, made from the result file. All texts in it are data of others.
'use strict';

/** Text in a cell of a Markdown table, without any meaning for Markdown or HTML. */
function cell(text) {
  return String(text ?? '')
    .replace(/[\u0000-\u001f\u007f]/g, ' ')
    .replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;')
    .replace(/[\\`*_{}[\]()#+.!|~@:-]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** One sentence: whose fault it was. */
function headline(result) {
  const detail = result.fault_detail ? `: ${result.fault_detail}` : '';
  switch (result.fault) {
    case 'NONE':
      return result.ended === 'cancelled' ? 'cancelled' : 'no fault';
    case 'WORK':
      return `the work is at fault${detail}`;
    case 'RESOURCE':
      return `the machine is at fault${detail}`;
    case 'REQUEST':
      return `the request is at fault${detail}`;
    case 'SERVICE':
      return `no server, or no capacity in time${detail}`;
    case 'OPEN':
      return `the command failed, and the check of its machine has not ended${detail}`;
    default:
      return `the command failed, and nothing speaks against its machine${detail}`;
  }
}

/** What the end was, in words. */
function end(result) {
  switch (result.ended) {
    case 'command':
      return result.signal ? `the command was ended by signal ${result.signal}` : `the command ended with exit code ${result.exit_code}`;
    case 'timeout':
      return 'the command ran longer than its time-out';
    case 'blamed':
      return 'the work broke several resources, and is not run again';
    case 'lost':
      return 'each attempt lost its machine';
    case 'cancelled':
      return 'the job was cancelled';
    default:
      return result.error?.message ?? 'the command was not run';
  }
}

/** Markdown for the summary of the job. */
function summary(result) {
  const attempts = result.attempts ?? [];
  if (result.fault === 'NONE' && attempts.length < 2 && result.ended === 'command') {
    return '';
  }
  const rows = attempts.map((attempt) => {
    const where = attempt.machine || attempt.resource || '';
    const finding = attempt.finding?.fault ?? '';
    return `| ${attempt.attempt} | ${cell(where)} | ${cell(attempt.lease)} | ${cell(attempt.state)} | ${cell(finding)} | ${cell(attempt.why_ended)} |`;
  });
  const table = ['| attempt | machine | lease | ended | finding | why |', '|---|---|---|---|---|---|', ...rows].join('\n');
  return `### Wharfinger: ${cell(headline(result))}\n\n${cell(end(result))}\n\n${rows.length > 0 ? `${table}\n\n` : ''}`;
}

module.exports = { cell, end, headline, summary };
