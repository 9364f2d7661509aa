// The benchmark's client for streams. It reads lines such as
//   {"do": "down", "port": 20001, "count": 1000}
// from stdin and answers each with one JSON object on stdout, as client.py does; the lines are
// written by json.dumps, so their form is fixed. Every message that comes back is counted, and
// every status looked at. It ends when stdin is closed.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "echo.grpc.pb.h"

namespace {

using bench::Item;
using Clock = std::chrono::steady_clock;
using Stub = bench::Echo::Stub;
using Chat = grpc::ClientReaderWriter<Item, Item>;

const int kDeadlineSeconds = 60;  // of any call: a server that stalls is an error, not a hang
const int kStreamsPerConnection = 100;  // the limit that many HTTP/2 servers set
const auto kPace = std::chrono::milliseconds(10);

struct WrongAnswer : std::runtime_error {
  using std::runtime_error::runtime_error;
};

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::unique_ptr<grpc::ClientContext> Context() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(kDeadlineSeconds));
  return context;
}

std::unique_ptr<Stub> Connect(int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection for each channel
  return bench::Echo::NewStub(grpc::CreateCustomChannel(
      "127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials(), arguments));
}

Item One(int64_t count = 1) {
  Item item;
  item.set_count(count);
  item.set_payload("0123456789");
  return item;
}

void Expect(const grpc::Status& status, int64_t got, int64_t expected, const char* what) {
  if (!status.ok()) {
    throw WrongAnswer(std::string(what) + ": status " + std::to_string(status.error_code()) + " " +
                      status.error_message());
  }
  if (got != expected) {
    throw WrongAnswer(std::string(what) + ": got " + std::to_string(got) + ", expected " +
                      std::to_string(expected));
  }
}

// The server sends `count` messages.
void Down(Stub& stub, int64_t count) {
  auto context = Context();
  auto reader = stub.Down(context.get(), One(count));
  Item item;
  int64_t got = 0;
  while (reader->Read(&item)) ++got;
  Expect(reader->Finish(), got, count, "down");
}

// The client sends `count` messages as fast as they go.
void Up(Stub& stub, int64_t count) {
  auto context = Context();
  Item item = One(), sum;
  auto writer = stub.Up(context.get(), &sum);
  for (int64_t i = 0; i < count && writer->Write(item); ++i) {
  }
  writer->WritesDone();
  auto status = writer->Finish();
  Expect(status, sum.count(), count, "up");
}

// One message there and back, `count` times, the next one only when it is back.
void Ping(Stub& stub, int64_t count) {
  auto context = Context();
  auto stream = stub.Chat(context.get());
  Item item = One(), back;
  int64_t got = 0;
  while (got < count && stream->Write(item) && stream->Read(&back)) ++got;
  stream->WritesDone();
  while (stream->Read(&back)) ++got;
  Expect(stream->Finish(), got, count, "ping");
}

// `count` messages there and back, written without waiting for what comes back.
void Pipe(Stub& stub, int64_t count) {
  auto context = Context();
  auto stream = stub.Chat(context.get());
  std::thread writer([&] {
    Item item = One();
    for (int64_t i = 0; i < count && stream->Write(item); ++i) {
    }
    stream->WritesDone();
  });
  Item back;
  int64_t got = 0;
  while (stream->Read(&back)) ++got;
  writer.join();
  Expect(stream->Finish(), got, count, "pipe");
}

// Streams that are open at the same time, on as many connections as they need.
class Open {
 public:
  Open(int port, int streams) {
    for (int i = 0; i < streams; ++i) {
      if (i % kStreamsPerConnection == 0) stubs_.push_back(Connect(port));
      contexts_.push_back(Context());
      chats_.push_back(stubs_.back()->Chat(contexts_.back().get()));
    }
    Round();  // all are really open when each has brought a message back
  }
  // One message there and back on every stream, all of them under way at once.
  void Round() {
    Item item = One(), back;
    for (auto& chat : chats_) {
      if (!chat->Write(item)) throw WrongAnswer("open streams: a write failed");
    }
    for (auto& chat : chats_) {
      if (!chat->Read(&back)) throw WrongAnswer("open streams: no answer on one of them");
    }
  }
  void Close() {
    for (auto& chat : chats_) chat->WritesDone();
    for (auto& chat : chats_) Expect(chat->Finish(), 0, 0, "open streams");
    chats_.clear();
  }
  ~Open() {
    if (chats_.empty()) return;  // closed
    for (auto& context : contexts_) context->TryCancel();
    for (auto& chat : chats_) chat->Finish();
  }

 private:
  std::vector<std::unique_ptr<Stub>> stubs_;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  std::vector<std::unique_ptr<Chat>> chats_;
};

// Long streams in the background, each with a message there and back every 10 ms.
class Mixed {
 public:
  Mixed(int port, int streams) : stub_(Connect(port)), micros_(streams), errors_(streams) {
    for (int i = 0; i < streams; ++i) threads_.emplace_back([this, i] { Run(i); });
  }
  ~Mixed() { Stop(); }
  std::string Report() {
    Stop();
    std::vector<double> all;
    for (auto& each : micros_) all.insert(all.end(), each.begin(), each.end());
    for (auto& error : errors_) {
      if (!error.empty()) throw WrongAnswer(error);
    }
    if (all.empty()) throw WrongAnswer("mixed: no message came back");
    std::sort(all.begin(), all.end());
    char text[160];
    snprintf(text, sizeof text, "{\"seconds\": 0, \"messages\": %zu, \"p50\": %.1f, \"p99\": %.1f}",
             all.size(), all[all.size() / 2], all[all.size() * 99 / 100]);
    return text;
  }

 private:
  void Run(int number) {
    auto context = Context();
    auto chat = stub_->Chat(context.get());
    Item item = One(), back;
    while (!stop_) {
      auto start = Clock::now();
      if (!chat->Write(item) || !chat->Read(&back)) break;
      micros_[number].push_back(Since(start) * 1e6);
      std::this_thread::sleep_until(start + kPace);
    }
    chat->WritesDone();
    auto status = chat->Finish();
    if (!status.ok()) errors_[number] = "mixed: " + status.error_message();
  }
  void Stop() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  std::unique_ptr<Stub> stub_;
  std::vector<std::vector<double>> micros_;
  std::vector<std::string> errors_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

struct State {
  std::map<int, std::unique_ptr<Stub>> stubs;
  std::unique_ptr<Open> open;
  std::unique_ptr<Mixed> mixed;
};

std::string Do(State& state, const std::string& what, int port, int64_t count) {
  static const std::map<std::string, void (*)(Stub&, int64_t)> kStreams = {
      {"down", Down}, {"up", Up}, {"ping", Ping}, {"pipe", Pipe}};
  if (what == "unmix") {
    auto mixed = std::move(state.mixed);
    return mixed->Report();
  }
  if (what == "mix") {
    state.mixed = std::make_unique<Mixed>(port, count);
    return "{\"seconds\": 0}";
  }
  auto start = Clock::now();
  if (what == "open") {
    state.open = std::make_unique<Open>(port, count);
  } else if (what == "round") {
    for (int64_t i = 0; i < count; ++i) state.open->Round();
  } else if (what == "close") {
    auto open = std::move(state.open);
    open->Close();
  } else {
    auto& stub = state.stubs[port];
    if (!stub) stub = Connect(port);
    kStreams.at(what)(*stub, count);
  }
  return "{\"seconds\": " + std::to_string(Since(start)) + "}";
}

std::string Escaped(std::string text) {
  for (char& c : text) {
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ') c = '\'';
  }
  return text;
}

}  // namespace

int main() {
  State state;
  char line[256], what[32];
  while (fgets(line, sizeof line, stdin)) {
    int port = 0;
    long long count = 0;
    std::string answer;
    const char* form = "{\"do\": \"%31[a-z]\", \"port\": %d, \"count\": %lld";
    try {
      if (sscanf(line, form, what, &port, &count) != 3) throw WrongAnswer("not understood");
      answer = Do(state, what, port, count);
    } catch (const std::exception& error) {
      state.open.reset();
      state.mixed.reset();
      answer = "{\"error\": \"" + Escaped(error.what()) + "\"}";
    }
    puts(answer.c_str());
    fflush(stdout);
  }
}
