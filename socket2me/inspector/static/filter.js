// The expression of the filter, which the relay reads: terms are added and taken out here.

const PLAIN_TERM = /^[^\s"\\]+$/;

/** `field:value` as a term, in quotes where it needs them. */
export function term(field, value) {
  const text = `${field}:${value}`;
  return PLAIN_TERM.test(text) ? text : `"${text.replace(/(["\\])/g, "\\$1")}"`;
}

/** `expression` with `added` at its end, if it is not in it. */
export function addTerm(expression, added) {
  const words = expression.trim();
  if (` ${words} `.includes(` ${added} `)) return words;
  return words ? `${words} ${added}` : added;
}
