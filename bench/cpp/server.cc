// bench.Echo on gRPC's C++ server, callback API: what the C core can do without Python. server PORT
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <string>

#include "echo.grpc.pb.h"

namespace {

using bench::Item;
using bench::SayReply;
using bench::SayRequest;
using grpc::CallbackServerContext;
using grpc::Status;

const auto kWait = std::chrono::milliseconds(5);

// Answers a call when its alarm goes off, on gRPC's threads.
class Later {
 public:
  explicit Later(grpc::ServerUnaryReactor* reactor) {
    alarm_.Set(std::chrono::system_clock::now() + kWait, [this, reactor](bool) {
      reactor->Finish(Status::OK);
      delete this;
    });
  }

 private:
  grpc::Alarm alarm_;
};

class DownReactor : public grpc::ServerWriteReactor<Item> {
 public:
  explicit DownReactor(const Item& request) : count_(request.count()) {
    item_.set_payload(request.payload());
    Next();
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      Next();
    } else {
      Finish(Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (sent_ == count_) {
      Finish(Status::OK);
      return;
    }
    item_.set_count(sent_++);
    StartWrite(&item_);
  }

  const int64_t count_;
  int64_t sent_ = 0;
  Item item_;
};

class UpReactor : public grpc::ServerReadReactor<Item> {
 public:
  explicit UpReactor(Item* response) : response_(response) { StartRead(&item_); }
  void OnReadDone(bool ok) override {
    if (ok) {
      total_ += item_.count();
      StartRead(&item_);
    } else {
      response_->set_count(total_);
      Finish(Status::OK);
    }
  }
  void OnDone() override { delete this; }

 private:
  Item* const response_;
  Item item_;
  int64_t total_ = 0;
};

class ChatReactor : public grpc::ServerBidiReactor<Item, Item> {
 public:
  ChatReactor() { StartRead(&item_); }
  void OnReadDone(bool ok) override {
    if (ok) {
      StartWrite(&item_);
    } else {
      Finish(Status::OK);
    }
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      StartRead(&item_);
    } else {
      Finish(Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  Item item_;
};

class Echo final : public bench::Echo::CallbackService {
  grpc::ServerUnaryReactor* Say(CallbackServerContext* context, const SayRequest* request,
                                SayReply* reply) override {
    reply->set_message(request->name());
    auto* reactor = context->DefaultReactor();
    reactor->Finish(Status::OK);
    return reactor;
  }
  grpc::ServerUnaryReactor* Wait(CallbackServerContext* context, const SayRequest* request,
                                 SayReply* reply) override {
    reply->set_message(request->name());
    auto* reactor = context->DefaultReactor();
    new Later(reactor);
    return reactor;
  }
  grpc::ServerWriteReactor<Item>* Down(CallbackServerContext*, const Item* request) override {
    return new DownReactor(*request);
  }
  grpc::ServerReadReactor<Item>* Up(CallbackServerContext*, Item* response) override {
    return new UpReactor(response);
  }
  grpc::ServerBidiReactor<Item, Item>* Chat(CallbackServerContext*) override {
    return new ChatReactor();
  }
};

}  // namespace

int main(int, char** argv) {
  Echo service;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  if (!server) return 1;
  server->Wait();
}
