// Commands over tunnels: the real broker, real streams, and an agent that answers as the test says.
#include <thread>

#include "common/base/reason.h"
#include "gmock/gmock.h"
#include "tests/unit/controller_link/link_fixture.h"

namespace bunker::controller {
namespace {

using ::testing::HasSubstr;

// An agent's side of one command: echoes stdin, or writes much, or does nothing at all.
class FakeProcess final : public agent::TunnelHandler {
 public:
  explicit FakeProcess(std::shared_ptr<agent::Tunnel> tunnel) : tunnel_(std::move(tunnel)) {}

  void OnExec(const link::v1::ExecStart& start) override {
    start_ = start;
    events.Push("exec");
    if (start.shell() == "fail") {
      tunnel_->SendError(ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                                     "the bunker has stopped"));
    } else if (start.shell() == "flood") {
      left_ = 32 << 20;
      Flood();
    } else if (start.shell() == "exit without reading") {
      SendExit(7);
    }
  }
  void OnStdin(std::string data) override {
    stdin_bytes_ += data.size();
    if (start_.shell() == "hang") return;
    tunnel_->SendOutput(false, data);
    tunnel_->StdinTaken();
  }
  void OnStdinClose() override {
    if (start_.shell() == "cat") SendExit(0);
  }
  void OnCancel() override { events.Push("cancel"); }
  void OnWritable() override {
    if (left_ > 0) Flood();
  }
  void OnClosed(const absl::Status&) override { events.Push("closed"); }

  void Break() { tunnel_->Cancel(); }

  test::BlockingQueue<std::string> events;

 private:
  void Flood() {
    const std::string chunk(64 * 1024, 'z');
    while (left_ > 0) {
      left_ -= chunk.size();
      if (!tunnel_->SendOutput(true, chunk) && left_ > 0) return;
    }
    SendExit(0);
  }
  void SendExit(int32_t code) {
    link::v1::ExecExit exit;
    exit.set_exit_code(code);
    exit.set_stderr_bytes(start_.shell() == "flood" ? 32 << 20 : 0);
    tunnel_->SendExit(exit);
  }

  const std::shared_ptr<agent::Tunnel> tunnel_;
  link::v1::ExecStart start_;
  size_t stdin_bytes_ = 0;
  size_t left_ = 0;
};

class ControllerTunnelTest : public LinkTest {
 protected:
  void Start() {
    StartController();
    identity_ = JoinedAs("w1");
    agent_ = std::make_unique<TestAgent>(agents_, AgentOptions(identity_));
    agent_->on_tunnel = [this](const link::v1::OpenTunnel& request,
                               std::shared_ptr<agent::Tunnel> tunnel) {
      opened_.Push(request);
      if (!serve_) return;
      processes_.push_back(std::make_unique<FakeProcess>(tunnel));
      tunnel->Serve(processes_.back().get());
      process_.Push(processes_.back().get());
    };
    agent_->Start();
    agent_->NextFrame();
  }
  ~ControllerTunnelTest() override {
    agent_.reset();
    controller_.reset();
    agents_.Stop();  // no tunnel speaks to a process any more
  }
  ExecSpec Spec(const std::string& shell) {
    ExecSpec spec;
    spec.worker_id = identity_.worker_id;
    spec.bunker_id = "bnk_1";
    spec.incarnation = 3;
    spec.shell = shell;
    return spec;
  }
  TunnelBroker::ExecId Exec(ExecSpec spec) {
    return controller_->thread().Run([&] {
      return controller_->link().tunnels().Exec(
          std::move(spec), [this](absl::StatusOr<ExecResult> result) {
            results_.Push(std::move(result));
          });
    });
  }
  absl::StatusOr<ExecResult> Result() {
    auto result = results_.Pop();
    if (!result) return absl::DeadlineExceededError("done was never called");
    return *std::move(result);
  }

  agent::Identity identity_;
  std::unique_ptr<TestAgent> agent_;
  bool serve_ = true;
  std::vector<std::unique_ptr<FakeProcess>> processes_;  // the agents' loop's
  test::BlockingQueue<FakeProcess*> process_;
  test::BlockingQueue<link::v1::OpenTunnel> opened_;
  test::BlockingQueue<absl::StatusOr<ExecResult>> results_;
};

TEST_F(ControllerTunnelTest, RunsACommandWithItsInput) {
  Start();
  ExecSpec spec = Spec("cat");
  for (int i = 0; i < 1 << 20; ++i) spec.stdin_data += static_cast<char>('a' + i % 26);
  const std::string input = spec.stdin_data;
  Exec(std::move(spec));
  const auto result = Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, 0);
  EXPECT_EQ(result->stdout_data, input);
  EXPECT_EQ(result->stdout_bytes, input.size());
  EXPECT_FALSE(result->truncated());
  const auto request = opened_.Pop();
  EXPECT_EQ(request->bunker_id(), "bnk_1");
  EXPECT_EQ(request->incarnation(), 3u);
  EXPECT_EQ((*process_.Pop())->events.Pop().value_or(""), "exec");
}

TEST_F(ControllerTunnelTest, KeepsTheFirstMebibyteAndCountsTheRest) {
  Start();
  Exec(Spec("flood"));
  const auto result = Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stderr_data.size(), 1u << 20);
  EXPECT_EQ(result->stderr_bytes, 32u << 20);
  EXPECT_TRUE(result->truncated());
}

TEST_F(ControllerTunnelTest, ACommandThatDoesNotReadItsInputEnds) {
  Start();
  ExecSpec spec = Spec("exit without reading");
  spec.stdin_data.assign(8 << 20, 'x');
  Exec(std::move(spec));
  const auto result = Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, 7);
  FakeProcess* process = *process_.Pop();
  EXPECT_EQ(process->events.Pop().value_or(""), "exec");
  EXPECT_EQ(process->events.Pop().value_or(""), "closed") << "its stream is not left open";
}

TEST_F(ControllerTunnelTest, TheAgentsErrorKeepsItsReason) {
  Start();
  Exec(Spec("fail"));
  const auto result = Result();
  EXPECT_EQ(ReasonOf(result.status()), "BUNKER_NOT_RUNNING");
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("has stopped"));
}

TEST_F(ControllerTunnelTest, CancellingEndsTheProcess) {
  Start();
  ExecSpec spec = Spec("hang");
  spec.stdin_data = "unread";
  const auto id = Exec(std::move(spec));
  FakeProcess* process = *process_.Pop();
  EXPECT_EQ(process->events.Pop().value_or(""), "exec");
  controller_->thread().Run([&] { controller_->link().tunnels().CancelExec(id); });
  EXPECT_EQ(ReasonOf(Result().status()), "CANCELLED");
  EXPECT_EQ(process->events.Pop().value_or(""), "closed");
  controller_->thread().Run([&] { controller_->link().tunnels().CancelExec(id); });
  EXPECT_FALSE(results_.Pop(std::chrono::milliseconds(100)).has_value()) << "once";
}

TEST_F(ControllerTunnelTest, AWorkerThatIsNotThereIsUnavailable) {
  Start();
  ExecSpec spec = Spec("cat");
  spec.worker_id = "wrk_other";
  Exec(std::move(spec));
  EXPECT_EQ(ReasonOf(Result().status()), "UNAVAILABLE");
}

TEST_F(ControllerTunnelTest, AnAgentThatDoesNotComeTimesOut) {
  options_.tunnels.open_timeout = absl::Seconds(1);
  options_.tunnels.max_waiting = 100;
  StartController();
  identity_ = JoinedAs("w1");
  // It hears of the tunnel and opens nothing.
  const auto channel = agent::OpenChannel({controller_->address(), false, ""});
  const auto stub = link::v1::AgentLink::NewStub(*channel);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + identity_.credential);
  const auto stream = stub->Connect(&context);
  link::v1::AgentFrame hello;
  hello.mutable_hello()->set_protocol_version(1);
  stream->Write(hello);
  link::v1::ControllerFrame frame;
  ASSERT_TRUE(stream->Read(&frame));
  ASSERT_TRUE(frame.has_welcome());
  // And reads nothing more: a thousand requests are bounded, and every caller gets an answer.
  constexpr int kExecs = 1000;
  for (int i = 0; i < kExecs; ++i) Exec(Spec("cat"));
  int unavailable = 0;
  int timed_out = 0;
  for (int i = 0; i < kExecs; ++i) {
    const std::string reason = ReasonOf(Result().status());
    unavailable += reason == "UNAVAILABLE";
    timed_out += reason == "UPSTREAM_TIMEOUT";
  }
  EXPECT_EQ(unavailable + timed_out, kExecs);
  EXPECT_GT(timed_out, 0);
  EXPECT_GT(unavailable, 0);
  context.TryCancel();
}

TEST_F(ControllerTunnelTest, AnAgentThatDiesInMidCommandIsTold) {
  Start();
  Exec(Spec("hang"));
  FakeProcess* process = *process_.Pop();
  EXPECT_EQ(process->events.Pop().value_or(""), "exec");
  // Its stream breaks, as its kill -9 would break it.
  agents_.Run([&] { process->Break(); });
  const auto result = Result();
  EXPECT_EQ(ReasonOf(result.status()), "UNAVAILABLE");
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("result is not known"));
}

TEST_F(ControllerTunnelTest, AControllerThatStopsTellsEveryCaller) {
  Start();
  Exec(Spec("hang"));
  FakeProcess* process = *process_.Pop();
  EXPECT_EQ(process->events.Pop().value_or(""), "exec");
  controller_->thread().Run([&] { controller_->link().CloseAll("the test stops it"); });
  EXPECT_EQ(ReasonOf(Result().status()), "UNAVAILABLE");
  EXPECT_EQ(process->events.Pop().value_or(""), "closed");
}

TEST_F(ControllerTunnelTest, ATunnelNobodyWaitsForIsRefused) {
  Start();
  const auto channel = agent::OpenChannel({controller_->address(), false, ""});
  const auto stub = link::v1::AgentLink::NewStub(*channel);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + identity_.credential);
  const auto stream = stub->Tunnel(&context);
  link::v1::AgentTunnelFrame hello;
  hello.mutable_hello()->set_tunnel_id("guessed");
  stream->Write(hello);
  link::v1::ControllerTunnelFrame frame;
  EXPECT_FALSE(stream->Read(&frame));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ControllerTunnelTest, AnotherWorkerCanNotTakeATunnel) {
  Start();
  serve_ = false;
  const agent::Identity other = JoinedAs("w2");
  // The agent opened it by itself; its id is spent, and another's claim of any id is refused.
  Exec(Spec("cat"));
  const auto request = opened_.Pop();
  ASSERT_TRUE(request.has_value());
  const auto channel = agent::OpenChannel({controller_->address(), false, ""});
  const auto stub = link::v1::AgentLink::NewStub(*channel);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + other.credential);
  const auto stream = stub->Tunnel(&context);
  link::v1::AgentTunnelFrame hello;
  hello.mutable_hello()->set_tunnel_id(request->tunnel_id());
  stream->Write(hello);
  link::v1::ControllerTunnelFrame frame;
  EXPECT_FALSE(stream->Read(&frame));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ControllerTunnelTest, ManyAtOnceEachGetTheirOwn) {
  Start();
  for (int i = 0; i < 50; ++i) {
    ExecSpec spec = Spec("cat");
    spec.stdin_data = "input " + std::to_string(i);
    Exec(std::move(spec));
  }
  std::set<std::string> outputs;
  for (int i = 0; i < 50; ++i) {
    const auto result = Result();
    ASSERT_TRUE(result.ok()) << result.status();
    outputs.insert(result->stdout_data);
  }
  EXPECT_EQ(outputs.size(), 50u);
}

}  // namespace
}  // namespace bunker::controller
