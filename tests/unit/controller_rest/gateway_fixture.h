// The whole controller behind REST, in one process: real engine on a real loop over a store in
// memory, dispatcher, gateway and HTTP server; a client on a real socket; and a scripted agent,
// which stands for the workers and says what the test tells it to.
#pragma once

#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/rng.h"
#include "common/seal/key_ring.h"
#include "controller/api/dispatcher.h"
#include "controller/api/exec_backend.h"
#include "controller/api/paging.h"
#include "controller/engine/audit_reader.h"
#include "controller/engine/core.h"
#include "controller/engine/engine.h"
#include "controller/rest/gateway.h"
#include "controller/rest/http_server.h"
#include "controller/store/mem_store.h"
#include "nlohmann/json.hpp"
#include "tests/unit/controller_rest/scripted_talks.h"
#include "tests/support/loop_thread.h"

namespace bunker::controller {

using Json = nlohmann::json;

struct Answer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  Json json;

  const Json& data() const { return json.at("data"); }
  std::string code() const {
    if (json.contains("error_code")) return json["error_code"];  // a flat one
    return json.contains("error") ? json["error"].value("code", "") : "";
  }
  std::string message() const {
    return json.contains("error") ? json["error"].value("message", "") : "";
  }
  std::string field(size_t i = 0) const { return json["error"]["details"][i].value("field", ""); }
};

// Answers every exec with what it was asked, unless told otherwise. On the loop.
class ScriptedExec final : public ExecBackend {
 public:
  explicit ScriptedExec(Loop& loop) : loop_(loop) {}
  Id Run(const Bunker& bunker, ExecCommand command, Done done) override;
  void Cancel(Id id) override;

  ExecOutcome outcome;
  absl::Status failure;
  bool hold = false;  // never answers, until cancelled
  std::vector<ExecCommand> commands;
  std::vector<Id> cancelled;

 private:
  Loop& loop_;
  std::map<Id, Done> held_;
  Id next_ = 1;
};

class GatewayFixture : public testing::Test {
 protected:
  GatewayFixture();
  ~GatewayFixture() override;

  // A request with the admin's key. `body` "" = none.
  Answer Call(const std::string& method, const std::string& path, const std::string& body = "");
  // The same with other headers (each ending in CR LF), `path` from the root.
  Answer Raw(const std::string& method, const std::string& path, const std::string& headers,
             const std::string& body = "");
  std::string AuthHeader() const { return "Authorization: Bearer " + key_ + "\r\n"; }

  // Opens a stream and returns its descriptor, for Lines().
  int OpenStream(const std::string& path, const std::string& key);
  // Sends a request with the admin's key and waits for nothing.
  int SendOnly(const std::string& method, const std::string& path, const std::string& body);
  // Asks until `ready` says yes; false after 20 s.
  static bool Eventually(const std::function<bool()>& ready);
  // Reads until `text` has come (20 s at most); everything read so far.
  std::string ReadUntil(int fd, const std::string& text);

  // Another user with a key of its own, straight into the store, since the routes for it are not
  // there yet. Before Boot().
  std::string AddUser(const std::string& name, Role role, const std::string& tenant_id = "");
  std::string AddTenant(const std::string& name, const std::string& partner_id = "");
  std::string AddPartner(const std::string& name);
  // Loads the store and serves. Once.
  void Boot(Dispatcher::Options limits = Dispatcher::Options{1e6, 1e6});

  // The scripted agent: joins and says hello; its id.
  std::string JoinWorker(const std::string& name,
                         const Ownership& ownership = {Scope::kPlatform, "", ""},
                         bool shared = true, Resources capacity = {4000, 8192, 100'000});
  void ConnectWorker(const std::string& worker_id, const WorkerFacts& facts);
  // The worker comes again, and tells of that bridge, too.
  void ReportBridge(const std::string& worker_id, const std::string& name);
  void Observe(const std::string& worker_id, ImageObservation seen);
  void Observe(const std::string& worker_id, BunkerObservation seen);
  // The image is resolved, pulled and baked on the worker.
  void FinishBake(const std::string& worker_id, const std::string& image_id);
  // The bunker's microVM says hello.
  void FinishBoot(const std::string& worker_id, const std::string& bunker_id);

  // Runs `task` as an event; back once it is durable.
  template <typename Task>
  auto InTurn(Task task) {
    using Result = std::invoke_result_t<Task, Engine&, Turn&>;
    auto promise = std::make_shared<std::promise<Result>>();
    auto future = promise->get_future();
    core_->Post([promise, task](Engine& engine, Turn& turn) mutable {
      auto result = std::make_shared<Result>(task(engine, turn));
      turn.AfterCommit([promise, result](const absl::Status&) { promise->set_value(*result); });
    });
    return future.get();
  }

  std::string key_;  // of the admin
  std::string last_user_id_;  // of AddUser()
  std::string tenant_id_;
  std::string partner_id_;
  test::LoopThread thread_;
  MemStore store_;
  SystemRng rng_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<ScriptedExec> exec_;
  std::unique_ptr<ScriptedTalks> talks_;
  ShellTickets tickets_;
  std::unique_ptr<Cursors> cursors_;
  std::unique_ptr<AuditReader> reader_;
  std::unique_ptr<KeyRing> keys_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<HttpServer> http_;
  std::map<std::string, uint64_t> versions_;
  std::map<std::string, std::vector<std::string>> held_;
  int tokens_ = 0;
  std::map<std::string, WorkerFacts> facts_;  // by worker
};

inline constexpr char kModule[] = "/v1/modules/scaibunker";

}  // namespace bunker::controller
