// The real link client against a server that the test scripts, over real gRPC.
#include "agent/link/link_client.h"

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "agent/link/join.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/blocking_queue.h"
#include "tests/support/loop_thread.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_link/scripted_controller.h"

namespace bunker::agent {
namespace {

using link::v1::AgentFrame;
using link::v1::AgentTunnelFrame;
using link::v1::Assignment;
using link::v1::ControllerFrame;
using link::v1::ControllerTunnelFrame;
using link::v1::Observation;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The agent behind the link. Called on the loop, asked from the test's thread through queues.
class RecordingHandler final : public LinkHandler {
 public:
  struct Got {
    AssignmentChanges changes;
    std::function<void()> durable;
  };

  absl::Status AdmitAssignment(const Assignment& row) override {
    if (row.image().size_mib() == 13)
      return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR", "unlucky");
    return absl::OkStatus();
  }
  void OnAssignments(AssignmentChanges changes, std::function<void()> durable) override {
    assignments.Push({std::move(changes), std::move(durable)});
  }
  void OnTunnel(const link::v1::OpenTunnel& request, std::shared_ptr<Tunnel> tunnel) override {
    if (tunnel_handler != nullptr) tunnel->Serve(tunnel_handler);
    tunnels.Push({request, std::move(tunnel)});
  }
  void OnRevoked(const std::string& reason) override { revoked.Push(reason); }

  TunnelHandler* tunnel_handler = nullptr;
  test::BlockingQueue<Got> assignments;
  test::BlockingQueue<std::pair<link::v1::OpenTunnel, std::shared_ptr<Tunnel>>> tunnels;
  test::BlockingQueue<std::string> revoked;
};

Assignment ImageRow(const std::string& id, uint64_t version, uint32_t size_mib = 64) {
  Assignment row;
  row.set_name("images/" + id);
  row.set_version(version);
  row.mutable_image()->set_image_id(id);
  row.mutable_image()->set_size_mib(size_mib);
  return row;
}

Observation ImageSeen(const std::string& id, uint64_t bytes_done = 0) {
  Observation row;
  row.set_name("images/" + id);
  row.mutable_image()->set_image_id(id);
  row.mutable_image()->set_status(link::v1::ImageObservation::BUILDING);
  row.mutable_image()->set_bytes_done(bytes_done);
  return row;
}

class LinkClientTest : public ::testing::Test {
 protected:
  ~LinkClientTest() override { Shutdown(); }
  // Nothing is called any more afterwards. Repeatable.
  void Shutdown() {
    if (std::exchange(shut_down_, true)) return;
    loop_.Run([this] { client_.reset(); });
    if (controller_ != nullptr) controller_->Stop();
    loop_.Stop();
  }

  LinkClient::Options Options() {
    LinkClient::Options options;
    options.endpoint = {controller_->address(), false, ""};
    options.identity = {"wrk_1", "w1", "secret", ""};
    options.boot_id = "boot";
    options.agent_version = "1.2.3";
    options.facts.set_cpu_millicores(2000);
    options.boot_counter = 5;
    options.default_ping_period = absl::Seconds(5);
    options.progress_pause = absl::Milliseconds(50);
    options.backoff.longest = absl::Milliseconds(200);
    return options;
  }
  void Start(LinkClient::Options options) {
    loop_.Run([&] {
      client_ = std::make_unique<LinkClient>(loop_.loop(), std::move(options), handler_);
      client_->Start();
    });
  }

  // The session's first frame.
  link::v1::Hello ReadHello(ScriptedSession& session) {
    const auto frame = session.frames.Pop();
    BUNKER_CHECK(frame && *frame && (*frame)->has_hello());
    return (*frame)->hello();
  }
  // The next frame that is no ping; an empty one where the stream ended.
  AgentFrame Read(ScriptedSession& session) {
    while (true) {
      const auto frame = session.frames.Pop();
      BUNKER_CHECK(frame.has_value());
      if (!frame->has_value()) return {};
      if (!(*frame)->has_ping()) return **frame;
    }
  }
  void Welcome(ScriptedSession& session, const VersionMap& held = {}, uint32_t ping_ms = 5000) {
    ControllerFrame frame;
    frame.mutable_welcome()->set_worker_id("wrk_1");
    frame.mutable_welcome()->set_ping_period_ms(ping_ms);
    for (const auto& [name, version] : held)
      (*frame.mutable_welcome()->mutable_held())[name] = version;
    session.Write(frame);
  }
  void Assign(ScriptedSession& session, uint64_t number, bool synced,
              const std::vector<Assignment>& rows, const std::vector<std::string>& removed = {}) {
    ControllerFrame frame;
    link::v1::AssignmentFrame& assignments = *frame.mutable_assignments();
    assignments.set_frame(number);
    assignments.set_synced(synced);
    for (const Assignment& row : rows) *assignments.add_rows() = row;
    for (const std::string& name : removed) assignments.add_removed(name);
    session.Write(frame);
  }
  void AckObservations(ScriptedSession& session, uint64_t number) {
    ControllerFrame frame;
    frame.mutable_ack()->set_frame(number);
    session.Write(frame);
  }

  std::unique_ptr<ScriptedController> controller_ = std::make_unique<ScriptedController>();
  test::LoopThread loop_;
  RecordingHandler handler_;
  std::unique_ptr<LinkClient> client_;
  bool shut_down_ = false;
};

TEST_F(LinkClientTest, SaysHelloWithItsCredentialAndWhatItHolds) {
  auto options = Options();
  options.held = {{"images/a", 7}};
  Start(options);
  const auto session = controller_->NextSession();
  ASSERT_NE(session, nullptr);
  const link::v1::Hello hello = ReadHello(*session);
  EXPECT_EQ(session->authorization(), "Bearer secret");
  EXPECT_EQ(hello.protocol_version(), 1u);
  EXPECT_EQ(hello.boot_id(), "boot");
  EXPECT_EQ(hello.instance_id().size(), 32u);
  EXPECT_EQ(hello.facts().cpu_millicores(), 2000u);
  EXPECT_EQ(hello.held().at("images/a"), 7u);
}

TEST_F(LinkClientTest, AcksAssignmentsOnlyWhenTheyAreDurable) {
  Start(Options());
  const auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session);
  EXPECT_TRUE(Read(*session).observations().synced());
  Assign(*session, 1, true, {ImageRow("a", 1), ImageRow("b", 2, 13)});
  auto got = handler_.assignments.Pop();
  ASSERT_TRUE(got.has_value());
  EXPECT_TRUE(got->changes.synced);
  ASSERT_EQ(got->changes.rows.size(), 1u);
  EXPECT_EQ(got->changes.rows[0].name(), "images/a");
  // What the agent says next would come after the ack, had it been sent.
  loop_.Run([&] { client_->UpsertObservation(ImageSeen("a")); });
  AckObservations(*session, 1);
  EXPECT_TRUE(Read(*session).has_observations());
  loop_.Run([&] { got->durable(); });
  const AgentFrame ack = Read(*session);
  ASSERT_TRUE(ack.has_ack());
  EXPECT_EQ(ack.ack().frame(), 1u);
  ASSERT_EQ(ack.ack().rejections_size(), 1);
  EXPECT_EQ(ack.ack().rejections(0).name(), "images/b");
  EXPECT_EQ(ack.ack().rejections(0).version(), 2u);
  EXPECT_EQ(ack.ack().rejections(0).code(), "VALIDATION_ERROR");
  EXPECT_EQ(ack.ack().rejections(0).message(), "unlucky");
}

TEST_F(LinkClientTest, RemovalsWaitForSynced) {
  auto options = Options();
  options.held = {{"images/a", 1}, {"images/b", 1}};
  Start(options);
  const auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session);
  Assign(*session, 1, false, {}, {"images/a", "images/b"});
  EXPECT_THAT(handler_.assignments.Pop()->changes.removed, IsEmpty());
  Assign(*session, 2, true, {ImageRow("b", 2)});
  const auto got = handler_.assignments.Pop();
  EXPECT_THAT(got->changes.removed, ElementsAre("images/a"));
}

TEST_F(LinkClientTest, AfterACutItDialsAgainAndTellsWhatTheControllerLacks) {
  Start(Options());
  auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session);
  ASSERT_TRUE(Read(*session).observations().synced());
  loop_.Run([&] {
    client_->UpsertObservation(ImageSeen("a"));
    client_->UpsertObservation(ImageSeen("b"));
  });
  Assign(*session, 1, true, {ImageRow("x", 3)});
  ASSERT_TRUE(handler_.assignments.Pop().has_value());
  session->End(/*cut=*/true);  // neither side's frame was acked

  session = controller_->NextSession();
  ASSERT_NE(session, nullptr);
  EXPECT_EQ(ReadHello(*session).held().at("images/x"), 3u);
  loop_.Run([&] { client_->RemoveObservation("images/b"); });
  const auto a_version = uint64_t{5} << 40 | 1;
  Welcome(*session, {{"images/a", a_version}, {"images/b", 77}, {"images/gone", 1}});
  const AgentFrame frame = Read(*session);
  EXPECT_EQ(frame.observations().rows_size(), 0) << "a is held with the very version";
  EXPECT_THAT(frame.observations().removed(), ElementsAre("images/b", "images/gone"));
  EXPECT_TRUE(frame.observations().synced());
}

TEST_F(LinkClientTest, AckOfADeadSessionIsNotSentIntoTheNext) {
  Start(Options());
  auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session);
  Assign(*session, 1, true, {ImageRow("x", 3)});
  auto got = handler_.assignments.Pop();
  session->End(true);
  session = controller_->NextSession();
  ReadHello(*session);
  loop_.Run([&] { got->durable(); });
  Welcome(*session);
  EXPECT_TRUE(Read(*session).has_observations()) << "and not the old ack";
}

TEST_F(LinkClientTest, ProgressIsToldAtItsPaceAndTheLatestWins) {
  auto options = Options();
  options.progress_pause = absl::Milliseconds(300);
  Start(options);
  const auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session);
  ASSERT_TRUE(Read(*session).observations().synced());
  AckObservations(*session, 1);
  loop_.Run([&] {
    for (uint64_t bytes = 1; bytes <= 1000; ++bytes)
      client_->UpsertObservation(ImageSeen("a", bytes));
  });
  AgentFrame frame = Read(*session);
  EXPECT_EQ(frame.observations().rows(0).image().bytes_done(), 1u);
  AckObservations(*session, 2);
  frame = Read(*session);
  EXPECT_EQ(frame.observations().rows(0).image().bytes_done(), 1000u);
}

TEST_F(LinkClientTest, PingsWhileIdleAndPartsFromASilentController) {
  auto options = Options();
  options.default_ping_period = absl::Milliseconds(100);
  Start(options);
  auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session, {}, /*ping_ms=*/100);
  ASSERT_TRUE(Read(*session).has_observations());
  const auto ping = session->frames.Pop();
  ASSERT_TRUE(ping && *ping && (*ping)->has_ping());
  // Nothing more is said: the agent comes anew.
  EXPECT_NE(controller_->NextSession(), nullptr);
}

TEST_F(LinkClientTest, FinalGoodbyeEndsTheLinkForGood) {
  Start(Options());
  const auto session = controller_->NextSession();
  ReadHello(*session);
  Welcome(*session);
  ControllerFrame frame;
  frame.mutable_goodbye()->set_reason("revoked by the operator");
  frame.mutable_goodbye()->set_final(true);
  session->Write(frame);
  EXPECT_EQ(handler_.revoked.Pop().value_or(""), "revoked by the operator");
  EXPECT_FALSE(loop_.Run([&] { return client_->connected(); }));
  // The longest wait before a new attempt is 200 ms.
  EXPECT_FALSE(handler_.revoked.Pop(std::chrono::milliseconds(600)).has_value());
  EXPECT_EQ(controller_->waiting_sessions(), 0u);
}

TEST_F(LinkClientTest, SurvivesAControllerThatComesLater) {
  auto options = Options();
  const std::string address = controller_->address();
  controller_.reset();
  Start(options);
  // It has failed at least once before somebody listens there again.
  loop_.Run([] {});
  controller_ = std::make_unique<ScriptedController>();
  loop_.Run([&] { client_.reset(); });
  options.endpoint.address = controller_->address();
  Start(options);
  EXPECT_NE(controller_->NextSession(), nullptr);
}

// ---- tunnels ----------------------------------------------------------------------------------

struct TunnelEvent {
  std::string what;
  std::string data;
};

class RecordingTunnel final : public TunnelHandler {
 public:
  void OnExec(const link::v1::ExecStart& start) override { events.Push({"exec", start.shell()}); }
  void OnStdin(std::string data) override { events.Push({"stdin", std::move(data)}); }
  void OnStdinClose() override { events.Push({"close", ""}); }
  void OnCancel() override { events.Push({"cancel", ""}); }
  void OnWritable() override { events.Push({"writable", ""}); }
  void OnClosed(const absl::Status& why) override { events.Push({"closed", why.ToString()}); }
  std::string Next() {
    auto event = events.Pop();
    return event ? event->what : "nothing";
  }
  test::BlockingQueue<TunnelEvent> events;
};

class TunnelTest : public LinkClientTest {
 protected:
  ~TunnelTest() override { Shutdown(); }
  void Open() {
    handler_.tunnel_handler = &recorder_;
    Start(Options());
    session_ = controller_->NextSession();
    ReadHello(*session_);
    Welcome(*session_);
    ControllerFrame frame;
    frame.mutable_open_tunnel()->set_tunnel_id("t1");
    frame.mutable_open_tunnel()->set_bunker_id("bnk_1");
    session_->Write(frame);
    far_ = controller_->NextTunnel();
    ASSERT_NE(far_, nullptr);
    auto opened = handler_.tunnels.Pop();
    ASSERT_TRUE(opened.has_value());
    EXPECT_EQ(opened->first.bunker_id(), "bnk_1");
    tunnel_ = opened->second;
    const auto hello = far_->frames.Pop();
    ASSERT_TRUE(hello && *hello && (*hello)->has_hello());
    EXPECT_EQ((*hello)->hello().tunnel_id(), "t1");
    EXPECT_EQ(far_->authorization(), "Bearer secret");
  }
  void Say(const std::string& what, const std::string& data = "") {
    ControllerTunnelFrame frame;
    if (what == "exec") frame.mutable_exec()->set_shell(data);
    if (what == "stdin") frame.set_stdin(data);
    if (what == "close") frame.set_stdin_close(true);
    if (what == "cancel") frame.set_cancel(true);
    far_->Write(frame);
  }

  RecordingTunnel recorder_;
  std::shared_ptr<ScriptedSession> session_;
  std::shared_ptr<ScriptedTunnel> far_;
  std::shared_ptr<Tunnel> tunnel_;
};

TEST_F(TunnelTest, CarriesACommandToItsEnd) {
  Open();
  Say("exec", "cat");
  Say("stdin", "one");
  Say("stdin", "two");
  Say("close");
  EXPECT_EQ(recorder_.Next(), "exec");
  EXPECT_EQ(recorder_.events.Pop()->data, "one");
  EXPECT_FALSE(recorder_.events.Pop(std::chrono::milliseconds(100)).has_value())
      << "the first chunk is not taken yet";
  loop_.Run([&] { tunnel_->StdinTaken(); });
  EXPECT_EQ(recorder_.events.Pop()->data, "two");
  loop_.Run([&] { tunnel_->StdinTaken(); });
  EXPECT_EQ(recorder_.Next(), "close");
  loop_.Run([&] {
    EXPECT_TRUE(tunnel_->SendOutput(false, std::string(100'000, 'x')));
    link::v1::ExecExit exit;
    exit.set_exit_code(3);
    tunnel_->SendExit(exit);
  });
  size_t bytes = 0;
  while (true) {
    const auto frame = far_->frames.Pop();
    ASSERT_TRUE(frame && *frame);
    if ((*frame)->has_exit()) {
      EXPECT_EQ((*frame)->exit().exit_code(), 3);
      break;
    }
    EXPECT_LE((*frame)->output().data().size(), Tunnel::kMaxOutputBytes);
    bytes += (*frame)->output().data().size();
  }
  EXPECT_EQ(bytes, 100'000u);
  EXPECT_FALSE(far_->frames.Pop()->has_value()) << "half-closed after the exit";
  far_->End();
  EXPECT_EQ(recorder_.Next(), "closed");
}

TEST_F(TunnelTest, CancelOvertakesStdinThatNobodyReads) {
  Open();
  Say("exec", "sleep");
  Say("stdin", "never read");
  Say("stdin", "neither");
  Say("cancel");
  EXPECT_EQ(recorder_.Next(), "exec");
  EXPECT_EQ(recorder_.Next(), "stdin");
  EXPECT_EQ(recorder_.Next(), "cancel");
}

TEST_F(TunnelTest, ABrokenStreamIsToldOnce) {
  Open();
  Say("exec", "sleep");
  EXPECT_EQ(recorder_.Next(), "exec");
  far_->End(/*cut=*/true);
  EXPECT_EQ(recorder_.Next(), "closed");
  // Late words are for nobody.
  loop_.Run([&] {
    EXPECT_TRUE(tunnel_->SendOutput(true, "x"));
    tunnel_->SendExit({});
    tunnel_->StdinTaken();
    tunnel_->Cancel();
  });
  EXPECT_FALSE(recorder_.events.Pop(std::chrono::milliseconds(100)).has_value());
}

TEST_F(TunnelTest, ASlowReaderHoldsTheWriterBack) {
  Open();
  Say("exec", "yes");
  EXPECT_EQ(recorder_.Next(), "exec");
  far_->Pause(true);
  const std::string chunk(64 * 1024, 'y');
  size_t sent = 0;
  bool room = true;
  // The wire takes its window, then the mark is reached; 64 MiB would be no bound at all.
  while (room && sent < (64u << 20)) {
    room = loop_.Run([&] { return tunnel_->SendOutput(false, chunk); });
    sent += chunk.size();
  }
  EXPECT_FALSE(room) << "told to wait";
  EXPECT_LT(sent, 64u << 20);
  far_->Pause(false);
  EXPECT_EQ(recorder_.Next(), "writable");
  loop_.Run([&] { tunnel_->SendExit({}); });
  size_t received = 0;
  while (true) {
    const auto frame = far_->frames.Pop();
    ASSERT_TRUE(frame && *frame);
    if ((*frame)->has_exit()) break;
    received += (*frame)->output().data().size();
  }
  EXPECT_EQ(received, sent);
}

TEST_F(TunnelTest, WhoWaitsIsToldOfRoomThatCameWhileTheLoopWasBusy) {
  Open();
  Say("exec", "yes");
  EXPECT_EQ(recorder_.Next(), "exec");
  far_->Pause(true);
  const std::string chunk(64 * 1024, 'y');
  size_t sent = chunk.size();
  while (loop_.Run([&] { return tunnel_->SendOutput(false, chunk); })) sent += chunk.size();
  const bool room = loop_.Run([&] {
    // The queue empties, and the loop has not heard of it when more comes.
    far_->Pause(false);
    for (size_t received = 0; received < sent;) {
      const auto frame = far_->frames.Pop();
      if (!frame || !*frame) return true;
      received += (*frame)->output().data().size();
    }
    return tunnel_->SendOutput(false, "more");
  });
  EXPECT_FALSE(room) << "still to be told";
  EXPECT_EQ(recorder_.Next(), "writable");
}

// ---- TLS --------------------------------------------------------------------------------------

class TlsTest : public LinkClientTest {
 protected:
  // A CA, a certificate for 127.0.0.1 of it, and another CA that knows nothing of it.
  void SetUp() override {
    const std::string script =
        "cd " + dir_.path() +
        " && for ca in ca other; do openssl req -x509 -newkey ec -pkeyopt "
        "ec_paramgen_curve:prime256v1 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca "
        "2>/dev/null || exit 1; done"
        " && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout srv.key "
        "-out srv.csr -subj /CN=controller 2>/dev/null"
        " && printf 'subjectAltName=IP:127.0.0.1' > ext"
        " && openssl x509 -req -in srv.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
        "-extfile ext -out srv.pem 2>/dev/null";
    ASSERT_EQ(std::system(script.c_str()), 0);
    grpc::SslServerCredentialsOptions options;
    options.pem_key_cert_pairs.push_back(
        {*ReadFile(dir_.File("srv.key"), 1 << 20), *ReadFile(dir_.File("srv.pem"), 1 << 20)});
    controller_ = std::make_unique<ScriptedController>(grpc::SslServerCredentials(options));
  }
  test::TempDir dir_;
};

TEST_F(TlsTest, ConnectsWithTheRightCaAlone) {
  auto options = Options();
  options.endpoint.tls = true;
  options.endpoint.ca_file = dir_.File("other.pem");
  Start(options);
  // Several attempts' time.
  const auto other = handler_.revoked.Pop(std::chrono::milliseconds(1000));
  EXPECT_FALSE(other.has_value());
  EXPECT_EQ(controller_->waiting_sessions(), 0u) << "an unknown CA must not be taken";
  loop_.Run([&] { client_.reset(); });
  options.endpoint.ca_file = dir_.File("ca.pem");
  Start(options);
  const auto session = controller_->NextSession();
  ASSERT_NE(session, nullptr);
  EXPECT_EQ(ReadHello(*session).boot_id(), "boot");
  EXPECT_EQ(session->authorization(), "Bearer secret");
}

TEST_F(TlsTest, PlainTextDoesNotReachATlsPort) {
  const auto joined = Join({controller_->address(), false, ""}, "good", "w", absl::Seconds(2));
  EXPECT_FALSE(joined.ok());
  const auto over_tls =
      Join({controller_->address(), true, dir_.File("ca.pem")}, "good", "w", absl::Seconds(10));
  EXPECT_TRUE(over_tls.ok()) << over_tls.status();
}

}  // namespace
}  // namespace bunker::agent
