// A whole controller but its public API: a store, the engine, the core on a loop of its own, the
// link on a real gRPC server; and real agents' link clients that dial it.
#pragma once

#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/link/join.h"
#include "agent/link/link_client.h"
#include "common/base/rng.h"
#include "controller/engine/core.h"
#include "controller/link/admin_client.h"
#include "controller/link/admin_server.h"
#include "controller/link/link_server.h"
#include "controller/link/server_parts.h"
#include "controller/store/mem_store.h"
#include "gtest/gtest.h"
#include "tests/support/blocking_queue.h"
#include "tests/support/loop_thread.h"
#include "tests/support/temp_dir.h"

namespace bunker::controller {

// One life of a controller over `store`.
class TestController {
 public:
  TestController(Store& store, const std::string& socket_path, LinkServer::Options options = {},
                 int port = 0)
      : engine_({}, rng_) {
    const absl::Status loaded = engine_.Load(store, absl::Now());
    BUNKER_CHECK(loaded.ok());
    thread_.Run([&] {
      core_ = std::make_unique<Core>(thread_.loop(), store, engine_, Core::Options{});
      core_->Start();
      link_ = std::make_unique<LinkServer>(*core_, options);
    });
    grpc::ServerBuilder builder;
    ApplyServerDefaults(builder);
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port),
                             grpc::InsecureServerCredentials(), &port_);
    link_->Register(builder);
    server_ = builder.BuildAndStart();
    BUNKER_CHECK(server_ != nullptr);
    auto admin = AdminServer::Start(*core_, socket_path);
    BUNKER_CHECK(admin.ok());
    admin_ = *std::move(admin);
  }
  ~TestController() {
    thread_.Run([this] { link_->CloseAll("the test ends"); });  // a second time is fine
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
    server_->Wait();
    admin_.reset();
    // In one task: no event that still waits may find the link gone.
    thread_.Run([this] {
      link_.reset();
      core_.reset();
    });
    thread_.Stop();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  LinkServer& link() { return *link_; }
  test::LoopThread& thread() { return thread_; }

  // Runs `task` as an event and returns what it returned, once that is durable.
  template <typename Task>
  auto InTurn(Task task) {
    using Result = std::invoke_result_t<Task, Engine&, Turn&>;
    auto promise = std::make_shared<std::promise<Result>>();
    auto future = promise->get_future();
    core_->Post([promise, task = std::move(task)](Engine& engine, Turn& turn) mutable {
      auto result = std::make_shared<Result>(task(engine, turn));
      turn.AfterCommit([promise, result](const absl::Status&) {
        promise->set_value(std::move(*result));
      });
    });
    return future.get();
  }

  // Asks again after each event until `ready` holds; false where it never did.
  bool Eventually(const std::function<bool(Engine&)>& ready) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (absl::Now() < deadline) {
      if (InTurn([&](Engine& engine, Turn&) { return ready(engine); })) return true;
      std::this_thread::yield();
    }
    return false;
  }

 private:
  SystemRng rng_;
  Engine engine_;
  test::LoopThread thread_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<LinkServer> link_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<AdminServer> admin_;
};

// The agent behind a link client: its "journal" is a map, and it does what the test tells it.
class TestAgent final : public agent::LinkHandler {
 public:
  using OnTunnelFn =
      std::function<void(const link::v1::OpenTunnel&, std::shared_ptr<agent::Tunnel>)>;

  TestAgent(test::LoopThread& thread, agent::LinkClient::Options options)
      : thread_(thread), options_(std::move(options)) {}
  ~TestAgent() override { Stop(); }

  void Start() {
    thread_.Run([this] {
      ++options_.boot_counter;
      options_.held.clear();
      for (const auto& [name, row] : journal_) options_.held[name] = row.version();
      client_ = std::make_unique<agent::LinkClient>(thread_.loop(), options_, *this);
      client_->Start();
    });
  }
  void Stop() {
    thread_.Run([this] { client_.reset(); });
  }

  absl::Status AdmitAssignment(const link::v1::Assignment& row) override {
    if (!refuse.empty() && row.name().find(refuse) != std::string::npos)
      return absl::InvalidArgumentError("this agent does not take that");
    return absl::OkStatus();
  }
  void OnAssignments(agent::AssignmentChanges changes, std::function<void()> durable) override {
    for (const link::v1::Assignment& row : changes.rows) journal_[row.name()] = row;
    for (const std::string& name : changes.removed) journal_.erase(name);
    durable();
    frames.Push(std::move(changes));
  }
  void OnTunnel(const link::v1::OpenTunnel& request,
                std::shared_ptr<agent::Tunnel> tunnel) override {
    if (on_tunnel) on_tunnel(request, std::move(tunnel));
  }
  void OnRevoked(const std::string& reason) override { revoked.Push(reason); }

  bool connected() {
    return thread_.Run([this] { return client_ != nullptr && client_->connected(); });
  }
  // The next frame with rows or removals in it, or that is the synced one.
  agent::AssignmentChanges NextFrame() {
    auto frame = frames.Pop();
    BUNKER_CHECK(frame.has_value());
    return *std::move(frame);
  }
  void Observe(const link::v1::Observation& row) {
    thread_.Run([&] { client_->UpsertObservation(row); });
  }
  void Forget(const std::string& name) {
    thread_.Run([&] { client_->RemoveObservation(name); });
  }
  std::map<std::string, link::v1::Assignment> journal() {
    return thread_.Run([this] { return journal_; });
  }

  std::string refuse;
  OnTunnelFn on_tunnel;
  test::BlockingQueue<agent::AssignmentChanges> frames;
  test::BlockingQueue<std::string> revoked;

 private:
  test::LoopThread& thread_;
  agent::LinkClient::Options options_;
  std::map<std::string, link::v1::Assignment> journal_;
  std::unique_ptr<agent::LinkClient> client_;
};

class LinkTest : public ::testing::Test {
 protected:
  LinkTest() {
    options_.sessions.session.ping_period = absl::Seconds(2);
    options_.tunnels.open_timeout = absl::Seconds(5);
  }
  void StartController() {
    controller_ = std::make_unique<TestController>(store_, SocketPath(), options_);
  }
  // The same store and port: what a restart of the daemon is.
  void RestartController() {
    const int port = controller_->port();
    controller_.reset();
    controller_ = std::make_unique<TestController>(store_, SocketPath(), options_, port);
  }
  std::string SocketPath() const { return dir_.File("run/admin.sock"); }

  std::string Token(const std::string& name, uint32_t ttl_s = 0) {
    const auto grant = CreateJoinToken(SocketPath(), name, ttl_s, {});
    BUNKER_CHECK(grant.ok());
    return grant->token;
  }
  absl::StatusOr<agent::Identity> Join(const std::string& token, const std::string& name) {
    return agent::Join({controller_->address(), false, ""}, token, name, absl::Seconds(10));
  }
  agent::Identity JoinedAs(const std::string& name) {
    const auto identity = Join(Token(name), name);
    BUNKER_CHECK(identity.ok());
    return *identity;
  }
  agent::LinkClient::Options AgentOptions(const agent::Identity& identity) {
    agent::LinkClient::Options options;
    options.endpoint = {controller_->address(), false, ""};
    options.identity = identity;
    options.boot_id = "boot-1";
    options.agent_version = "0.1";
    options.facts.set_cpu_millicores(4000);
    options.facts.set_memory_mb(8192);
    options.facts.set_disk_mb(100'000);
    options.facts.set_arch("X86_64");
    options.facts.set_isolation("tcg");
    options.progress_pause = absl::Milliseconds(20);
    options.backoff.longest = absl::Milliseconds(100);
    return options;
  }
  std::unique_ptr<TestAgent> StartAgent(const agent::Identity& identity) {
    auto agent = std::make_unique<TestAgent>(agents_, AgentOptions(identity));
    agent->Start();
    return agent;
  }

  test::TempDir dir_;
  MemStore store_;
  LinkServer::Options options_;
  std::unique_ptr<TestController> controller_;
  test::LoopThread agents_;
};

}  // namespace bunker::controller
