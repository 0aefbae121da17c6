// The two mirrored tables over the real link: what is wanted comes down, what is seen goes up,
// through cuts, restarts of either side and a full disk.
#include <atomic>
#include <optional>
#include <thread>

#include "common/base/reason.h"
#include "gmock/gmock.h"
#include "tests/unit/controller_link/link_fixture.h"

namespace bunker::controller {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

link::v1::Observation Seen(const std::string& image_id, link::v1::ImageObservation::Status status,
                           uint32_t attempt = 1) {
  link::v1::Observation row;
  row.set_name("images/" + image_id);
  link::v1::ImageObservation& image = *row.mutable_image();
  image.set_image_id(image_id);
  image.set_attempt(attempt);
  image.set_status(status);
  image.set_stage("pulling");
  if (status == link::v1::ImageObservation::READY) {
    image.set_recipe_digest("sha256:" + std::string(64, 'a'));
    image.set_rootfs_digest("fsverity-sha256:" + std::string(64, 'b'));
    image.set_allocated_bytes(1000);
    link::v1::Resolved& resolved = *image.mutable_resolved();
    resolved.set_repository("registry/app");
    resolved.set_manifest_digest("sha256:" + std::string(64, 'c'));
    resolved.mutable_config()->set_arch("X86_64");
  }
  return row;
}

class SyncLinkTest : public LinkTest {
 protected:
  void SetUp() override {
    StartController();
    identity_ = JoinedAs("w1");
  }

  // An image that worker w1 is to have.
  std::string WantImage(const std::string& name) {
    return controller_->InTurn([&](Engine& engine, Turn& turn) {
      const Caller operator_caller = OperatorCaller();
      RegisterImageSpec image;
      image.name = name;
      image.build_source.ref = "registry/" + name + ":1";
      image.size_mib = 64;
      image.scope = Scope::kPlatform;
      const auto row = engine.RegisterImage(turn, operator_caller, image);
      BUNKER_CHECK(row.ok());
      if (!engine.FindGroup(operator_caller, "g").ok()) {
        CreateGroupSpec group;
        group.name = "g";
        group.scope = Scope::kPlatform;
        BUNKER_CHECK(engine.CreateGroup(turn, operator_caller, group).ok());
        BUNKER_CHECK(engine.AttachWorker(turn, operator_caller, "g", "w1").ok());
      }
      BUNKER_CHECK(engine.AttachImage(turn, operator_caller, "g", name).ok());
      return (*row)->id;
    });
  }
  CacheStatus StatusOf(Engine& engine, const std::string& image_id) {
    const auto rows = engine.ListCache(OperatorCaller(), image_id);
    if (!rows.ok() || rows->empty()) return CacheStatus::kEvicted;
    return rows->front().entry->status;
  }
  bool Becomes(const std::string& image_id, CacheStatus status) {
    return controller_->Eventually(
        [&](Engine& engine) { return StatusOf(engine, image_id) == status; });
  }

  agent::Identity identity_;
};

TEST_F(SyncLinkTest, AssignmentsComeDownAndObservationsGoUp) {
  const std::string early = WantImage("early");
  auto agent = StartAgent(identity_);
  auto frame = agent->NextFrame();
  EXPECT_TRUE(frame.synced);
  ASSERT_EQ(frame.rows.size(), 1u);
  EXPECT_EQ(frame.rows[0].image().image_id(), early);
  EXPECT_EQ(frame.rows[0].image().source().oci_ref(), "registry/early:1");
  EXPECT_EQ(frame.rows[0].image().size_mib(), 64u);
  const std::string late = WantImage("late");
  frame = agent->NextFrame();
  EXPECT_FALSE(frame.synced);
  ASSERT_EQ(frame.rows.size(), 1u);
  EXPECT_EQ(frame.rows[0].name(), "images/" + late);

  agent->Observe(Seen(early, link::v1::ImageObservation::BUILDING));
  EXPECT_TRUE(Becomes(early, CacheStatus::kBuilding));
  agent->Observe(Seen(early, link::v1::ImageObservation::READY));
  EXPECT_TRUE(Becomes(early, CacheStatus::kReady));
  EXPECT_TRUE(controller_->Eventually([&](Engine& engine) {
    return (*engine.FindImage(OperatorCaller(), early))->resolved.has_value();
  }));
}

TEST_F(SyncLinkTest, ARestartOfTheControllerLosesAndRepeatsNothing) {
  const std::string image = WantImage("app");
  auto agent = StartAgent(identity_);
  ASSERT_EQ(agent->NextFrame().rows.size(), 1u);
  agent->Observe(Seen(image, link::v1::ImageObservation::READY));
  ASSERT_TRUE(Becomes(image, CacheStatus::kReady));
  // The pinned digest came down as a new version of the row; take what is on its way.
  const auto settled = [&](Engine&) { return agent->frames.size() == 0; };
  while (agent->frames.size() > 0) agent->NextFrame();
  const auto before = agent->journal();
  RestartController();
  agent::AssignmentChanges frame = agent->NextFrame();
  while (!frame.synced) frame = agent->NextFrame();
  EXPECT_THAT(frame.removed, IsEmpty());
  const auto after = agent->journal();
  ASSERT_EQ(after.size(), before.size());
  EXPECT_TRUE(Becomes(image, CacheStatus::kReady));
  EXPECT_TRUE(controller_->Eventually(settled));
  // What happens after the restart still gets through.
  const std::string next = WantImage("next");
  EXPECT_EQ(agent->NextFrame().rows.at(0).name(), "images/" + next);
}

TEST_F(SyncLinkTest, ARestartOfTheAgentTellsEverythingAnew) {
  const std::string kept = WantImage("kept");
  const std::string lost = WantImage("lost");
  auto agent = StartAgent(identity_);
  agent->NextFrame();
  agent->Observe(Seen(kept, link::v1::ImageObservation::READY));
  agent->Observe(Seen(lost, link::v1::ImageObservation::READY));
  ASSERT_TRUE(Becomes(kept, CacheStatus::kReady));
  ASSERT_TRUE(Becomes(lost, CacheStatus::kReady));
  agent->Stop();
  // The new life finds only one of the two on its disk, before it dials.
  agent::LinkClient::Options options = AgentOptions(identity_);
  options.boot_counter = 100;
  for (const auto& [name, row] : agent->journal()) options.held[name] = row.version();
  TestAgent reborn(agents_, options);
  std::unique_ptr<agent::LinkClient> client;
  agents_.Run([&] {
    client = std::make_unique<agent::LinkClient>(agents_.loop(), options, reborn);
    client->UpsertObservation(Seen(kept, link::v1::ImageObservation::READY));
    client->Start();
  });
  EXPECT_TRUE(controller_->Eventually(
      [&](Engine& engine) { return StatusOf(engine, lost) != CacheStatus::kReady; }));
  EXPECT_TRUE(Becomes(kept, CacheStatus::kReady));
  agents_.Run([&] { client.reset(); });
}

TEST_F(SyncLinkTest, DetachingTakesTheRowAway) {
  const std::string image = WantImage("app");
  auto agent = StartAgent(identity_);
  agent->NextFrame();
  controller_->InTurn([](Engine& engine, Turn& turn) {
    BUNKER_CHECK(engine.DetachImage(turn, OperatorCaller(), "g", "app").ok());
    engine.Sweep(turn);
    return 0;
  });
  agent::AssignmentChanges frame = agent->NextFrame();
  while (frame.removed.empty()) frame = agent->NextFrame();
  EXPECT_THAT(frame.removed, ElementsAre("images/" + image));
}

TEST_F(SyncLinkTest, ARefusedRowShowsItsReason) {
  auto agent = std::make_unique<TestAgent>(agents_, AgentOptions(identity_));
  agent->refuse = "images/";
  agent->Start();
  const std::string image = WantImage("app");
  ASSERT_TRUE(Becomes(image, CacheStatus::kFailed));
  controller_->InTurn([&](Engine& engine, Turn&) {
    const auto rows = engine.ListCache(OperatorCaller(), image);
    EXPECT_THAT(rows->front().entry->error_message, HasSubstr("does not take that"));
    return 0;
  });
}

TEST_F(SyncLinkTest, AFullDiskAcksNothingAndItIsToldAgainWhenThereIsRoom) {
  const std::string image = WantImage("app");
  auto agent = StartAgent(identity_);
  agent->NextFrame();
  store_.SetFull(true);
  agent->Observe(Seen(image, link::v1::ImageObservation::READY));
  // The session is ended, and no new one can begin without room.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (agent->connected() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_FALSE(agent->connected());
  store_.SetFull(false);
  EXPECT_TRUE(Becomes(image, CacheStatus::kReady));
}

TEST_F(SyncLinkTest, AWorkerIsOnlineWhileItIsHeard) {
  auto agent = StartAgent(identity_);
  agent->NextFrame();
  EXPECT_TRUE(controller_->Eventually([&](Engine& engine) {
    return engine.FindWorker(OperatorCaller(), "w1")->worker->status == WorkerStatus::kOnline;
  }));
}

// Two live agents with one identity: the newest wins once, and when the other one comes back both
// are out.
TEST_F(SyncLinkTest, TwoAgentsWithOneCredentialAreQuarantined) {
  auto first = StartAgent(identity_);
  first->NextFrame();
  auto clone = StartAgent(identity_);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while ((first->connected() || clone->connected() ||
          controller_->thread().Run([&] { return controller_->link().sessions().connected(); }) >
              0) &&
         absl::Now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_LT(absl::Now(), deadline) << "one of them stayed";
  EXPECT_THAT(first->revoked.size() + clone->revoked.size(), 0u) << "neither is told to go";
}

// ---- a peer that breaks the rules -------------------------------------------------------------

class RawAgent {
 public:
  RawAgent(const std::string& address, const std::string& credential) {
    channel_ = *agent::OpenChannel({address, false, ""});
    stub_ = link::v1::AgentLink::NewStub(channel_);
    context_.AddMetadata("authorization", "Bearer " + credential);
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    stream_ = stub_->Connect(&context_);
  }
  void Hello() {
    link::v1::AgentFrame frame;
    frame.mutable_hello()->set_protocol_version(1);
    frame.mutable_hello()->set_boot_id("boot");
    frame.mutable_hello()->set_instance_id("raw");
    stream_->Write(frame);
  }
  void Ack(uint64_t number) {
    link::v1::AgentFrame frame;
    frame.mutable_ack()->set_frame(number);
    stream_->Write(frame);
  }
  void Write(const link::v1::AgentFrame& frame) { stream_->Write(frame); }
  std::optional<link::v1::ControllerFrame> Read() {
    link::v1::ControllerFrame frame;
    while (stream_->Read(&frame)) {
      if (!frame.has_ping()) return frame;
    }
    return std::nullopt;
  }
  grpc::Status End() {
    while (Read()) {
    }
    return stream_->Finish();
  }
  void Cancel() { context_.TryCancel(); }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<link::v1::AgentLink::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<link::v1::AgentFrame, link::v1::ControllerFrame>>
      stream_;
};

TEST_F(SyncLinkTest, ARefusalThatFoundNoRoomIsToldAgain) {
  const std::string image = WantImage("app");
  RawAgent agent(controller_->address(), identity_.credential);
  agent.Hello();
  ASSERT_TRUE(agent.Read()->has_welcome());
  const auto assignments = agent.Read();
  ASSERT_TRUE(assignments && assignments->has_assignments());
  store_.SetFull(true);
  link::v1::AgentFrame frame;
  frame.mutable_ack()->set_frame(assignments->assignments().frame());
  link::v1::Rejection& refused = *frame.mutable_ack()->add_rejections();
  refused.set_name("images/" + image);
  refused.set_version(assignments->assignments().rows(0).version());
  refused.set_code("VALIDATION_ERROR");
  agent.Write(frame);
  auto next = agent.Read();
  while (next && !next->has_goodbye()) next = agent.Read();
  ASSERT_TRUE(next) << "the stream ended without a goodbye";
  EXPECT_FALSE(next->goodbye().final());
  store_.SetFull(false);
  agent.Cancel();
}

TEST_F(SyncLinkTest, TheFirstFrameMustBeTheHello) {
  RawAgent agent(controller_->address(), identity_.credential);
  agent.Ack(1);
  EXPECT_EQ(agent.End().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(SyncLinkTest, AnAckOfNothingEndsTheSession) {
  RawAgent agent(controller_->address(), identity_.credential);
  agent.Hello();
  EXPECT_TRUE(agent.Read()->has_welcome());
  agent.Ack(99);
  EXPECT_FALSE(agent.End().ok());
}

TEST_F(SyncLinkTest, ARowThatIsNoneIsRefusedAndTheRestIsTaken) {
  const std::string image = WantImage("app");
  RawAgent agent(controller_->address(), identity_.credential);
  agent.Hello();
  ASSERT_TRUE(agent.Read()->has_welcome());
  ASSERT_TRUE(agent.Read()->has_assignments());
  link::v1::AgentFrame frame;
  frame.mutable_observations()->set_frame(1);
  frame.mutable_observations()->set_synced(true);
  frame.mutable_observations()->add_rows()->set_name("images/nothing");
  link::v1::Observation& misnamed = *frame.mutable_observations()->add_rows();
  misnamed = Seen(image, link::v1::ImageObservation::READY);
  misnamed.set_name("images/other");
  *frame.mutable_observations()->add_rows() = Seen(image, link::v1::ImageObservation::BUILDING);
  agent.Write(frame);
  const auto ack = agent.Read();
  ASSERT_TRUE(ack && ack->has_ack());
  EXPECT_EQ(ack->ack().rejections_size(), 2);
  EXPECT_EQ(ack->ack().rejections(0).code(), "VALIDATION_ERROR");
  EXPECT_TRUE(Becomes(image, CacheStatus::kBuilding));
}

TEST_F(SyncLinkTest, ANewerSessionOfTheSameRunTakesTheOldOnesPlace) {
  RawAgent old(controller_->address(), identity_.credential);
  old.Hello();
  ASSERT_TRUE(old.Read()->has_welcome());
  RawAgent fresh(controller_->address(), identity_.credential);
  fresh.Hello();
  ASSERT_TRUE(fresh.Read()->has_welcome());
  std::optional<link::v1::ControllerFrame> frame = old.Read();
  while (frame && !frame->has_goodbye()) frame = old.Read();
  ASSERT_TRUE(frame.has_value());
  EXPECT_FALSE(frame->goodbye().final());
}

TEST_F(SyncLinkTest, AStreamWithoutAHelloIsNotKept) {
  controller_.reset();
  options_.sessions.hello_timeout = absl::Milliseconds(100);
  StartController();
  RawAgent agent(controller_->address(), identity_.credential);
  EXPECT_EQ(agent.End().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(SyncLinkTest, ASilentAgentIsPartedFrom) {
  controller_.reset();
  options_.sessions.session.ping_period = absl::Milliseconds(50);
  StartController();
  RawAgent agent(controller_->address(), identity_.credential);
  agent.Hello();
  ASSERT_TRUE(agent.Read()->has_welcome());
  EXPECT_EQ(agent.End().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

// ---- acks come after the commit ---------------------------------------------------------------

// Commits what a manual store is given, while it is let.
class Committer {
 public:
  explicit Committer(MemStore& store) : store_(store), thread_([this] { Run(); }) {}
  ~Committer() {
    stop_ = true;
    thread_.join();
  }
  // After Hold() returns no commit is under way, and none begins before Release().
  void Hold() {
    hold_ = true;
    while (!held_) std::this_thread::yield();
  }
  void Release() { hold_ = false; }

 private:
  void Run() {
    while (!stop_) {
      held_ = hold_.load();
      if (held_ || !store_.CommitNext()) std::this_thread::yield();
    }
  }
  MemStore& store_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> hold_{false};
  std::atomic<bool> held_{false};
  std::thread thread_;
};

TEST_F(SyncLinkTest, ObservationsAreAckedAfterTheCommitAlone) {
  const std::string image = WantImage("app");
  controller_.reset();
  MemStore manual(store_.rows(), /*manual=*/true);
  Committer committer(manual);
  TestController controller(manual, SocketPath(), options_);
  RawAgent agent(controller.address(), identity_.credential);
  agent.Hello();
  ASSERT_TRUE(agent.Read()->has_welcome());
  ASSERT_TRUE(agent.Read()->has_assignments());
  committer.Hold();

  link::v1::AgentFrame frame;
  frame.mutable_observations()->set_frame(1);
  frame.mutable_observations()->set_synced(true);
  *frame.mutable_observations()->add_rows() = Seen(image, link::v1::ImageObservation::BUILDING);
  agent.Write(frame);
  test::BlockingQueue<bool> acked;
  std::thread reader([&] {
    const auto ack = agent.Read();
    acked.Push(ack && ack->has_ack());
  });
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (manual.waiting() == 0 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_GT(manual.waiting(), 0u) << "the observation was not written";
  EXPECT_FALSE(acked.Pop(std::chrono::milliseconds(300)).has_value()) << "acked too early";
  committer.Release();
  EXPECT_TRUE(acked.Pop().value_or(false));
  agent.Cancel();
  reader.join();
}

}  // namespace
}  // namespace bunker::controller
