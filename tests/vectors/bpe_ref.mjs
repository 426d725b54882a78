// bpe_ref.mjs LIBRARY SEED N TOKENIZER.json...: token ids of random texts by the tokenizers library itself, as
// @anush008/tokenizers 0.6.0 (npm) carries it; LIBRARY is that package's folder.  Lines of file, text in hexadecimal ('-': no text), ids,
// the text of the ids in hexadecimal; with the special tokens that a post-processor adds, where the file's name has "bos".
import { createRequire } from 'node:module';
import { basename, resolve } from 'node:path';

const [library, seed, n, ...files] = process.argv.slice(2);
const { Tokenizer } = createRequire(import.meta.url)(resolve(library));
const words = ['hello', 'World', 'the', 'word', '  ', ' ', '\n', '\t', '1', '23', '4567', 'é', 'ü', 'я', 'Привет', '日本', '語', '🦙',
  '👩‍👩‍👧', 'aaaaaaaaaaaa', '...', '!!', 'ﬁ', '\u0301', '\u0323\u0301', '\u0301\u0323', 'e\u0301', '\ufeff', '\x7f', '\x01', '½', '²', '٣٤', 'Ⅷ',
  'کتاب', 'กขค', '<|im_end|>', '<|im_start|>', '<image>', '\u{10ffff}', '\ufffd', 'ing', 'tion', '==', '->', '//', '\r\n', '\n\n', '   \n  ', "'s",
  "'S", "'ſ", "'ll", "'LL", "'t", '\u00a0', '\u3000', '\u2028', '\u0085', "don't", 'K', '한국어', '\u1100\u1161\u11a8', '각', 'Å', '\u212b', 'क्षि',
  '\t\t', '_', '__x', 'a_b', '$%^', '(', ',', ';', '’s', '\x0b', '\x1c', '\u200b', '\u200d', '🏳️‍🌈', 'def f(x):', '\n    return 1.5e-7', 'ABC', '<l>', '<r>', '<b>'];
let state = BigInt(seed) + 1n;
const below = (k) => { // splitmix64
  state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
  let z = state;
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return Number((z ^ (z >> 31n)) % BigInt(k));
};
const letters = "ab c\n eéx1'st";
const point = () => String.fromCodePoint([1 + below(0x2fe), 0x300 + below(0x300), 0x2010 + below(0x500), 0x3041 + below(0x80),
  0x4e00 + below(0x5000), 0xac00 + below(0x2ba0), 0x1f300 + below(0x200)][below(7)]);
const text = () => {
  const kind = below(100), many = (k, f) => Array.from({ length: below(k) }, f).join('');
  return kind < 70 ? many(12, () => words[below(words.length)]) : kind < 85 ? many(40, () => letters[below(letters.length)]) : many(20, point);
};
for (const file of files) {
  const t = Tokenizer.fromFile(file);
  for (let i = 0; i < Number(n); i++) {
    const s = text(), ids = (await t.encode(s, null, { addSpecialTokens: file.includes('bos') })).getIds();
    const hex = (x) => Buffer.from(x, 'utf8').toString('hex') || '-';
    console.log([basename(file), hex(s), ids.join(' '), hex(await t.decode(ids, true))].join('\t'));
  }
}
