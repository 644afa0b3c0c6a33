// Reads a PowerShell script from standard input with tree-sitter's grammar and prints
// its commands, one a line, as JSON lists of words, then "end", or "error: " and where.
const path = require('path');
const dir = path.join(process.argv[2], 'node_modules');
const { Parser, Language } = require(path.join(dir, 'web-tree-sitter', 'web-tree-sitter.cjs'));
const chunks = [];
process.stdin.on('data', (c) => chunks.push(c));
process.stdin.on('end', async () => {
  const text = Buffer.concat(chunks).toString('utf8').replace(/^\uFEFF/, '');
  await Parser.init();
  const parser = new Parser();
  parser.setLanguage(await Language.load(path.join(dir, 'tree-sitter-powershell', 'tree-sitter-powershell.wasm')));
  const root = parser.parse(text).rootNode;
  if (root.hasError) {
    console.log('error: ' + root.toString().slice(0, 300));
    return;
  }
  const out = [];
  for (const c of root.descendantsOfType('command')) {
    const words = [];
    const walk = (n) => {
      if (['command_name', 'command_parameter'].includes(n.type)) words.push(n.text);
      else if (['verbatim_string_characters', 'generic_token', 'variable'].includes(n.type)) words.push(n.text);
      else if (n.type !== 'command' || n.equals(c)) for (let i = 0; i < n.namedChildCount; i++) walk(n.namedChild(i));
    };
    walk(c);
    out.push(JSON.stringify(words));
  }
  console.log(out.join('\n'));
  console.log('end'); // the caller ends the process, which the parser's module keeps alive
});
