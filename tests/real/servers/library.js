// The library of ../protos on grpc-js, with the reflection of @grpc/reflection.
//
//   node library.js PROTOS GOOGLEAPIS [v1|v1Alpha]
//
// GOOGLEAPIS is a folder with google/rpc/*.proto. Reflection is served in both versions unless one
// is named. Prints "Listening on 127.0.0.1:PORT".
"use strict";

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const { ReflectionService } = require("@grpc/reflection");
const path = require("node:path");
const protobuf = require("protobufjs");

const [protos, googleapis, version] = process.argv.slice(2);

const PERSON = { name: "Johann Wolfgang von Goethe", born: 1749 };
const BOOKS = [
  {
    isbn: "1",
    title: "Die Leiden des jungen Werthers",
    genre: "GENRE_NOVEL",
    authors: [PERSON],
    published: { seconds: -6162739200 },
    copies: { north: 2, south: 1 },
    print: { pages: 224 },
    notes: {
      fields: {
        epistolary: { boolValue: true },
        places: { listValue: { values: [{ stringValue: "Wetzlar" }, { nullValue: "NULL_VALUE" }] } },
      },
    },
    extra: {
      "@type": "type.googleapis.com/library.awards.Award",
      name: "Bestseller",
      giver: { name: "Everybody" },
    },
    edition: 0,
  },
  {
    isbn: "2",
    title: "Die Wahlverwandtschaften",
    genre: "GENRE_NOVEL",
    authors: [PERSON],
    published: { seconds: -5080752000, nanos: 500000000 },
    audio: { seconds: 36000 },
  },
  { isbn: "3", title: "Römische Elegien", genre: "GENRE_POETRY" },
];

function getBook(call, callback) {
  const initial = new grpc.Metadata();
  initial.set("library-reader", String(call.metadata.get("reader")[0] ?? "nobody"));
  call.sendMetadata(initial);
  const trailing = new grpc.Metadata();
  trailing.set("library-branch", "north");
  trailing.set("library-shelf-bin", Buffer.from([0, 1, 255]));
  const { isbn } = call.request;
  const book = BOOKS.find((book) => book.isbn === isbn);
  if (book) {
    callback(null, book, trailing);
  } else {
    const details = `no book has the ISBN '${isbn}'`;
    trailing.set("grpc-status-details-bin", statusOf(grpc.status.NOT_FOUND, details, isbn));
    callback({ code: grpc.status.NOT_FOUND, details, metadata: trailing });
  }
}

function statusOf(code, message, isbn) {
  const detail = (type, fields) => ({ "@type": `type.googleapis.com/${type}`, ...fields });
  const Status = rpc.lookupType("google.rpc.Status");
  const status = Status.fromObject({
    code,
    message,
    details: [
      detail("google.rpc.ErrorInfo", {
        reason: "NO_SUCH_BOOK",
        domain: "library.example",
        metadata: { isbn },
      }),
      detail("google.rpc.BadRequest", {
        fieldViolations: [{ field: "isbn", description: "is of no book" }],
      }),
      detail("library.Question", { text: "Is it '1'?" }),
      { type_url: "type.googleapis.com/secret.Thing", value: Buffer.from([8, 1]) },
    ],
  });
  return Buffer.from(Status.encode(status).finish());
}

function listBooks(call) {
  const { genre, published_after: after } = call.request;
  const isLater = (book) => !after || Number(book.published.seconds) > Number(after.seconds);
  for (const book of BOOKS.filter((book) => book.genre === genre && isLater(book))) {
    call.write(book);
  }
  call.end();
}

function donate(call, callback) {
  const donation = { count: 0, copies: {} };
  call.on("data", (book) => {
    donation.count += 1;
    donation.last = book;
    for (const [branch, count] of Object.entries(book.copies)) {
      donation.copies[branch] = (donation.copies[branch] ?? 0) + count;
    }
  });
  call.on("end", () => callback(null, donation));
}

function talk(call) {
  let number = 0;
  call.on("data", ({ text }) => {
    number += 1;
    if (text) {
      call.write({ text: `${text}? Yes.`, number });
    } else {
      const details = `question ${number} is empty`;
      call.emit("error", { code: grpc.status.INVALID_ARGUMENT, details });
    }
  });
  call.on("end", () => call.end());
}

const files = [
  "library/library.proto",
  "library/book.proto",
  "library/award.proto",
  "people/person.proto",
];
const definition = protoLoader.loadSync(files, {
  includeDirs: [protos],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
});

// For what no service uses: google.rpc, and what is in its details.
const rpc = new protobuf.Root();
rpc.resolvePath = (_, name) => {
  const bundled = protobuf.common.get(name) && name;
  return bundled || path.join(name.startsWith("google/") ? googleapis : protos, name);
};
rpc.loadSync([...files, "google/rpc/status.proto", "google/rpc/error_details.proto"]);

const server = new grpc.Server();
server.addService(grpc.loadPackageDefinition(definition).library.Library.service, {
  getBook,
  listBooks,
  donate,
  talk,
});
const reflection = new ReflectionService(definition);
(version ? reflection[version] : reflection).addToServer(server);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`Listening on 127.0.0.1:${port}`);
});
