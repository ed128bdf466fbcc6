// Decodes PNG pictures as browsers make them: 8 bits a sample, RGB with or without alpha.
import assert from "node:assert/strict";
import zlib from "node:zlib";

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const samplesOf = { 2: 3, 6: 4 };

function paeth(a, b, c) {
  const p = a + b - c;
  const [pa, pb, pc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  if (pa <= pb && pa <= pc) return a;
  return pb <= pc ? b : c;
}

// {width, height, colours}: how many different ones there are.
export function decodePng(bytes) {
  assert.ok(bytes.subarray(0, 8).equals(signature), "not a PNG");
  let header;
  const data = [];
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const type = bytes.toString("latin1", at + 4, at + 8);
    const content = bytes.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") header = content;
    if (type === "IDAT") data.push(content);
    at += 12 + length;
  }
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const samples = samplesOf[header[9]];
  assert.ok(header[8] === 8 && samples && header[12] === 0, `a kind of PNG that is not read here: ${[...header]}`);
  const rows = zlib.inflateSync(Buffer.concat(data));
  const stride = width * samples;
  assert.equal(rows.length, height * (stride + 1));
  const colours = new Set();
  let above = Buffer.alloc(stride);
  for (let y = 0; y < height; ++y) {
    const filter = rows[y * (stride + 1)];
    const row = rows.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1));
    for (let x = 0; x < stride; ++x) {
      const left = x < samples ? 0 : row[x - samples];
      const corner = x < samples ? 0 : above[x - samples];
      row[x] += [0, left, above[x], (left + above[x]) >> 1, paeth(left, above[x], corner)][filter];
    }
    for (let x = 0; x < stride; x += samples) colours.add(row.readUIntBE(x, 3));
    above = row;
  }
  return { width, height, colours: colours.size };
}
