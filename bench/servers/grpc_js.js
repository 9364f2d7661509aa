// bench.Echo on @grpc/grpc-js with @grpc/proto-loader, no generated code: node grpc_js.js PORT PROTO
'use strict';

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [port, proto] = process.argv.slice(2);
const echo = grpc.loadPackageDefinition(loader.loadSync(proto, { longs: Number })).bench.Echo;

function say(call, done) {
  done(null, { message: call.request.name });
}

function wait(call, done) {
  setTimeout(say, 5, call, done);
}

function down(call) {
  const { count, payload } = call.request;
  let sent = 0;
  function more() {
    while (sent < count) {
      if (!call.write({ count: sent++, payload })) {
        call.once('drain', more);
        return;
      }
    }
    call.end();
  }
  more();
}

function up(call, done) {
  let total = 0;
  call.on('data', (item) => {
    total += item.count;
  });
  call.on('end', () => done(null, { count: total }));
}

function chat(call) {
  call.pipe(call); // pauses reading while the other side does not take what is written
}

const server = new grpc.Server({ 'grpc.so_reuseport': 0 });
server.addService(echo.service, { say, wait, down, up, chat });
server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
