#include <sys/stat.h>

#include "common/base/reason.h"
#include "gmock/gmock.h"
#include "tests/unit/controller_link/link_fixture.h"

namespace bunker::controller {
namespace {

using ::testing::HasSubstr;

class JoinTest : public LinkTest {
 protected:
  void SetUp() override { StartController(); }
};

TEST_F(JoinTest, ATokenIsGoodOnceForItsNameAlone) {
  const std::string token = Token("w1");
  const auto wrong_name = Join(token, "w2");
  EXPECT_EQ(ReasonOf(wrong_name.status()), "AUTH_TOKEN_INVALID");
  const auto joined = Join(token, "w1");
  ASSERT_TRUE(joined.ok()) << joined.status();
  EXPECT_THAT(joined->worker_id, HasSubstr("wrk_"));
  EXPECT_GE(joined->credential.size(), 43u);
  const auto twice = Join(token, "w1");
  EXPECT_EQ(ReasonOf(twice.status()), "AUTH_TOKEN_INVALID");
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("join-token"));
  EXPECT_EQ(ReasonOf(Join("wtk_invented", "w1").status()), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(Join("", "w1").status()), "AUTH_TOKEN_INVALID");
  EXPECT_FALSE(Join(std::string(10'000, 'x'), "w1").ok());
}

TEST_F(JoinTest, ATokenRunsOut) {
  const std::string token = Token("w1", /*ttl_s=*/1);
  test::BlockingQueue<int> later;
  agents_.Run([&] { agents_.loop().AddTimer(absl::Milliseconds(1100), [&] { later.Push(1); }); });
  ASSERT_TRUE(later.Pop().has_value());
  EXPECT_EQ(ReasonOf(Join(token, "w1").status()), "AUTH_TOKEN_INVALID");
}

TEST_F(JoinTest, TheStoreHoldsHashesAlone) {
  const std::string token = Token("w1");
  const auto identity = Join(token, "w1");
  ASSERT_TRUE(identity.ok());
  for (const auto& [key, body] : store_.rows()) {
    EXPECT_EQ(body.find(token), std::string::npos) << key.second;
    EXPECT_EQ(body.find(identity->credential), std::string::npos) << key.second;
  }
}

TEST_F(JoinTest, AForgedCredentialIsRefused) {
  agent::Identity forged = JoinedAs("w1");
  for (const std::string& credential :
       {std::string("wkc_forged"), std::string(), std::string(400, 'x')}) {
    const auto channel = agent::OpenChannel({controller_->address(), false, ""});
    ASSERT_TRUE(channel.ok());
    const auto stub = link::v1::AgentLink::NewStub(*channel);
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + credential);
    const auto stream = stub->Connect(&context);
    link::v1::AgentFrame hello;
    hello.mutable_hello()->set_protocol_version(1);
    stream->Write(hello);
    link::v1::ControllerFrame frame;
    EXPECT_FALSE(stream->Read(&frame)) << frame.DebugString();
    const absl::Status status = agent::FromGrpc(stream->Finish());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << status;
    EXPECT_EQ(ReasonOf(status), "AUTH_TOKEN_INVALID");
    EXPECT_THAT(std::string(status.message()), HasSubstr("join again"));
  }
}

TEST_F(JoinTest, WithoutACredentialNothingOpens) {
  const auto channel = agent::OpenChannel({controller_->address(), false, ""});
  const auto stub = link::v1::AgentLink::NewStub(*channel);
  grpc::ClientContext connect;
  const auto session = stub->Connect(&connect);
  link::v1::ControllerFrame frame;
  EXPECT_FALSE(session->Read(&frame));
  EXPECT_EQ(ReasonOf(agent::FromGrpc(session->Finish())), "AUTH_TOKEN_MISSING");
  grpc::ClientContext open;
  const auto tunnel = stub->Tunnel(&open);
  link::v1::ControllerTunnelFrame tunnel_frame;
  EXPECT_FALSE(tunnel->Read(&tunnel_frame));
  EXPECT_EQ(ReasonOf(agent::FromGrpc(tunnel->Finish())), "AUTH_TOKEN_MISSING");
}

TEST_F(JoinTest, JoiningAnewSendsTheOldAgentAwayForGood) {
  const agent::Identity first = JoinedAs("w1");
  auto agent = StartAgent(first);
  agent->NextFrame();
  const agent::Identity second = JoinedAs("w1");
  EXPECT_EQ(second.worker_id, first.worker_id);
  EXPECT_NE(second.credential, first.credential);
  EXPECT_THAT(agent->revoked.Pop().value_or(""), HasSubstr("credential"));
  EXPECT_FALSE(agent->connected());
}

TEST_F(JoinTest, TheAdminSocketIsRootsAlone) {
  struct stat info = {};
  ASSERT_EQ(::stat(SocketPath().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat(dir_.File("run").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  // And its service is not on the network.
  const auto channel = agent::OpenChannel({controller_->address(), false, ""});
  const auto stub = v1::Admin::NewStub(*channel);
  grpc::ClientContext context;
  v1::CreateJoinTokenRequest request;
  v1::CreateJoinTokenResponse response;
  request.set_worker_name("w1");
  EXPECT_EQ(stub->CreateJoinToken(&context, request, &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(JoinTest, AdminRefusesWhatIsWrong) {
  for (const char* name : {"", "-x", ".", "a b", "a/b", "../x", "\xc3\xa4"}) {
    const auto grant = CreateJoinToken(SocketPath(), name, 0, {});
    EXPECT_EQ(ReasonOf(grant.status()), "VALIDATION_ERROR") << name;
  }
  EXPECT_EQ(ReasonOf(CreateJoinToken(SocketPath(), "w1", 601, {}).status()), "VALIDATION_ERROR");
  const auto nobody = CreateJoinToken(dir_.File("none.sock"), "w1", 0, {});
  EXPECT_EQ(ReasonOf(nobody.status()), "UNAVAILABLE");
  EXPECT_THAT(std::string(nobody.status().message()), HasSubstr("as root"));
}

TEST_F(JoinTest, ASecondServerOnTheSamePortOrSocketIsRefused) {
  grpc::ServerBuilder builder;
  ApplyServerDefaults(builder);
  builder.AddListeningPort(controller_->address(), grpc::InsecureServerCredentials());
  link::v1::AgentLink::CallbackService service;
  builder.RegisterService(&service);
  EXPECT_EQ(builder.BuildAndStart(), nullptr);
  controller_->thread().Run([] {});
  MemStore other_store;
  SystemRng rng;
  Engine engine({}, rng);
  ASSERT_TRUE(engine.Load(other_store, absl::Now()).ok());
  Core core(controller_->thread().loop(), other_store, engine, {});
  const auto second = AdminServer::Start(core, SocketPath());
  EXPECT_EQ(ReasonOf(second.status()), "RESOURCE_IN_USE");
  ASSERT_EQ(::chmod(dir_.File("run").c_str(), 0777), 0);
  EXPECT_THAT(std::string(AdminServer::Start(core, dir_.File("run/b.sock")).status().message()),
              HasSubstr("chmod 0700"));
}

}  // namespace
}  // namespace bunker::controller
