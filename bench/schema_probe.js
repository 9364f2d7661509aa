// Loads a tree with proto-loader, as schema_probe.py does: node schema_probe.js ROOT NAMES SERVICE
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [root, names, service] = process.argv.slice(2);
const files = fs.readFileSync(names, 'utf8').split('\n');
const before = process.memoryUsage().rss;
const start = performance.now();
const definition = loader.loadSync(files, { includeDirs: [root] });
const loaded = performance.now();
const packages = grpc.loadPackageDefinition(definition);
const found = service.split('.').reduce((at, name) => at[name], packages);
const request = Object.values(found.service)[0].requestType.type.name;
const done = performance.now();
console.log(
  JSON.stringify({
    request: `tree.${request}`,
    'load ms': loaded - start,
    'with a service ms': done - start,
    'load MB': (process.memoryUsage().rss - before) / 1e6,
  }),
);
