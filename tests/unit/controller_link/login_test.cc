// A registry login goes to the worker that is assigned the image, and to nobody else.
#include "agent/link/login_client.h"
#include "common/base/reason.h"
#include "common/seal/key_ring.h"
#include "controller/engine/credentials.h"
#include "gmock/gmock.h"
#include "tests/unit/controller_link/link_fixture.h"

namespace bunker::controller {
namespace {

using ::testing::HasSubstr;

constexpr char kHost[] = "127.0.0.1:5000";

class LoginTest : public LinkTest {
 protected:
  void SetUp() override {
    options_.keys = &keys_;
    StartController();
  }
  void TearDown() override { controller_.reset(); }  // it uses the keys

  // An image of the platform's with a login, on `worker`; its id.
  std::string PrivateImage(const std::string& worker) {
    return controller_->InTurn([&](Engine& engine, Turn& turn) {
      const Caller caller = OperatorCaller();
      CredentialSpec spec;
      spec.id = engine.credentials().NewId(turn);
      spec.name = "reg";
      spec.scope = Scope::kPlatform;
      spec.host = kHost;
      spec.username = "ada";
      spec.sealed = keys_.Seal("canary", SealedTo(spec.id, kHost, "ada"));
      BUNKER_CHECK(engine.credentials().Create(turn, caller, spec).ok());
      RegisterImageSpec image;
      image.name = "private";
      image.scope = Scope::kPlatform;
      image.build_source.ref = std::string(kHost) + "/team/app:1";
      image.pull_secret = "reg";
      const auto row = engine.RegisterImage(turn, caller, image);
      BUNKER_CHECK(row.ok());
      CreateGroupSpec group;
      group.name = "g";
      group.scope = Scope::kPlatform;
      BUNKER_CHECK(engine.CreateGroup(turn, caller, group).ok());
      BUNKER_CHECK(engine.AttachWorker(turn, caller, "g", worker).ok());
      BUNKER_CHECK(engine.AttachImage(turn, caller, "g", "private").ok());
      return (*row)->id;
    });
  }
  absl::StatusOr<link::v1::RegistryLogin> Ask(const agent::Identity& identity,
                                              const std::string& image_id) {
    CancelToken cancel;
    return agent::FetchRegistryLogin({controller_->address(), false, ""}, identity, image_id,
                                     absl::Seconds(10), cancel);
  }
  // As its hello would.
  void Online(const agent::Identity& identity) {
    controller_->InTurn([&](Engine& engine, Turn& turn) {
      WorkerFacts facts;
      facts.capacity = {4000, 4096, 100'000};
      facts.arch = Arch::kX86_64;
      return engine.ConnectWorker(turn, identity.worker_id, facts, "boot", "0").ok();
    });
  }

  const KeyRing keys_ = *KeyRing::Parse(KeyRing::NewKey(), "test");
};

TEST_F(LoginTest, GoesToTheWorkerThatHasTheImage) {
  const agent::Identity one = JoinedAs("w1");
  const agent::Identity two = JoinedAs("w2");
  Online(one);
  Online(two);
  const std::string image = PrivateImage(one.worker_id);
  const auto login = Ask(one, image);
  ASSERT_TRUE(login.ok()) << login.status();
  EXPECT_EQ(login->name(), "reg");
  EXPECT_EQ(login->host(), kHost);
  EXPECT_EQ(login->username(), "ada");
  EXPECT_EQ(login->password(), "canary");
  EXPECT_EQ(ReasonOf(Ask(two, image).status()), "NOT_FOUND");
  EXPECT_EQ(ReasonOf(Ask(one, "img_other").status()), "NOT_FOUND");
  agent::Identity forged = one;
  forged.credential = "wkc_forged";
  EXPECT_EQ(ReasonOf(Ask(forged, image).status()), "AUTH_TOKEN_INVALID");
  for (const auto& [key, body] : store_.rows())
    EXPECT_EQ(body.find("canary"), std::string::npos) << key.second;
}

TEST_F(LoginTest, WhatCanNotBeOpenedSaysSo) {
  const agent::Identity one = JoinedAs("w1");
  Online(one);
  const std::string image = PrivateImage(one.worker_id);
  controller_->InTurn([&](Engine& engine, Turn& turn) {
    const auto row = engine.credentials().All().front();
    engine.credentials().SealAnew(
        turn, row->id,
        KeyRing::Parse(KeyRing::NewKey(), "lost")->Seal("canary", SealedTo(row->id, kHost, "ada")));
    return true;
  });
  const auto login = Ask(one, image);
  EXPECT_FALSE(login.ok());
  EXPECT_THAT(std::string(login.status().message()), HasSubstr("PUT its secret again"));
}

TEST_F(LoginTest, NobodyAtTheOtherEndIsWorthAnotherTry) {
  CancelToken cancel;
  const auto login = agent::FetchRegistryLogin({"127.0.0.1:1", false, ""}, agent::Identity(), "img",
                                               absl::Milliseconds(200), cancel);
  EXPECT_EQ(login.status().code(), absl::StatusCode::kUnavailable) << login.status();
  cancel.Cancel();
  const auto ended = agent::FetchRegistryLogin({"127.0.0.1:1", false, ""}, agent::Identity(), "img",
                                               absl::Minutes(10), cancel);
  EXPECT_FALSE(ended.ok());
}

}  // namespace
}  // namespace bunker::controller
