// The public services over real gRPC, called by descriptor as a generic client does; the same
// handlers as REST's.
#include "controller/api/grpc_surface.h"

#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "bunker/v1/bunker.grpc.pb.h"
#include "bunker/v1/group.grpc.pb.h"
#include "bunker/v1/image.grpc.pb.h"
#include "controller/api/services.h"
#include "controller/engine/core.h"
#include "controller/init.h"
#include "controller/rest/gateway.h"
#include "controller/store/mem_store.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/support/loop_thread.h"
#include "tests/support/temp_dir.h"

namespace bunker::controller {
namespace {

class GrpcSurfaceTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto made = InitStore(store_, absl::Now());
    ASSERT_TRUE(made.ok());
    key_ = made->key;
    ASSERT_TRUE(engine_.Load(store_, absl::Now()).ok());
    thread_.Run([this] {
      core_ = std::make_unique<Core>(thread_.loop(), store_, engine_, Core::Options());
      core_->Start();
    });
    dispatcher_ = std::make_unique<Dispatcher>(*core_, Dispatcher::Options());
    RegisterAllServices({&cursors_, nullptr, "0.0.0"}, dispatcher_.get());
    surface_ = std::make_unique<GrpcSurface>(*core_, *dispatcher_, PublicServices());
    socket_ = folder_.path() + "/s.sock";
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.AddListeningPort("unix:" + socket_, grpc::InsecureServerCredentials());
    surface_->Register(builder);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    tcp_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                               grpc::InsecureChannelCredentials());
    unix_ = grpc::CreateChannel("unix:" + socket_, grpc::InsecureChannelCredentials());
  }
  void TearDown() override {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
    server_->Wait();
    thread_.Run([this] { core_.reset(); });
    thread_.Stop();
  }

  std::unique_ptr<grpc::ClientContext> Context(const std::string& key = "") {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    if (!key.empty()) context->AddMetadata("authorization", "Bearer " + key);
    return context;
  }

  static google::rpc::Status Details(const grpc::Status& status) {
    google::rpc::Status details;
    EXPECT_TRUE(details.ParseFromString(status.error_details()));
    return details;
  }
  static std::string Reason(const grpc::Status& status) {
    google::rpc::ErrorInfo info;
    const google::rpc::Status details = Details(status);
    return details.details_size() > 0 && details.details(0).UnpackTo(&info) ? info.reason() : "";
  }

  test::TempDir folder_;
  std::string socket_;
  std::string key_;
  MemStore store_;
  SystemRng rng_;
  Engine engine_{EngineOptions(), rng_};
  test::LoopThread thread_;
  std::unique_ptr<Core> core_;
  Cursors cursors_{std::string(32, 'c')};
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<GrpcSurface> surface_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> tcp_;
  std::shared_ptr<grpc::Channel> unix_;
};

TEST_F(GrpcSurfaceTest, CallsTheSameHandlersWithTheSameKeys) {
  auto images = v1::Images::NewStub(tcp_);
  v1::RegisterImageRequest request;
  request.set_name("x");
  request.set_size_mib(64);
  request.mutable_build_source()->set_kind(v1::BuildSource::KIND_OCI);
  request.mutable_build_source()->set_ref("docker.io/r-base:4.4");
  v1::Image image;
  const grpc::Status made = images->RegisterImage(Context(key_).get(), request, &image);
  ASSERT_TRUE(made.ok()) << made.error_message();
  EXPECT_EQ(image.name(), "x");
  v1::ListImagesResponse list;
  EXPECT_TRUE(images->ListImages(Context(key_).get(), v1::ListImagesRequest(), &list).ok());
  ASSERT_EQ(list.images_size(), 1);
  EXPECT_EQ(list.images(0).id(), image.id());

  const grpc::Status taken = images->RegisterImage(Context(key_).get(), request, &image);
  EXPECT_EQ(taken.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Reason(taken), "SLUG_CONFLICT");
}

TEST_F(GrpcSurfaceTest, KeysAreNeededOnTheNetworkAndNotOnTheSocket) {
  v1::ListImagesResponse list;
  auto images = v1::Images::NewStub(tcp_);
  const grpc::Status none = images->ListImages(Context().get(), v1::ListImagesRequest(), &list);
  EXPECT_EQ(none.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Reason(none), "AUTH_TOKEN_MISSING");
  const grpc::Status bad =
      images->ListImages(Context("sgk_bad").get(), v1::ListImagesRequest(), &list);
  EXPECT_EQ(Reason(bad), "AUTH_TOKEN_INVALID");
  const grpc::Status operators =
      v1::Images::NewStub(unix_)->ListImages(Context().get(), v1::ListImagesRequest(), &list);
  EXPECT_TRUE(operators.ok()) << operators.error_message();
  // The operator has no tenant to make things in, but the platform.
  auto groups = v1::AvailabilityGroups::NewStub(unix_);
  v1::CreateAvailabilityGroupRequest request;
  request.set_name("g");
  v1::AvailabilityGroup group;
  EXPECT_EQ(Reason(groups->CreateAvailabilityGroup(Context().get(), request, &group)),
            "VALIDATION_ERROR");
  request.set_scope(v1::SCOPE_PLATFORM);
  EXPECT_TRUE(groups->CreateAvailabilityGroup(Context().get(), request, &group).ok());
}

TEST_F(GrpcSurfaceTest, AValueThatIsNoneIsRefusedByField) {
  auto bunkers = v1::Bunkers::NewStub(tcp_);
  v1::CreateBunkerRequest request;
  request.mutable_bunker()->set_image("x");
  request.mutable_bunker()->set_lifecycle_mode(static_cast<v1::LifecycleMode>(77));
  v1::CreateBunkerResponse bunker;
  const grpc::Status refused = bunkers->CreateBunker(Context(key_).get(), request, &bunker);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::BadRequest bad;
  ASSERT_GE(Details(refused).details_size(), 2);
  ASSERT_TRUE(Details(refused).details(1).UnpackTo(&bad));
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "lifecycle_mode");
}

TEST_F(GrpcSurfaceTest, AnIdempotencyKeyTravelsAsMetadata) {
  auto groups = v1::AvailabilityGroups::NewStub(tcp_);
  v1::CreateAvailabilityGroupRequest request;
  request.set_name("g");
  v1::AvailabilityGroup first;
  v1::AvailabilityGroup second;
  for (v1::AvailabilityGroup* answer : {&first, &second}) {
    auto context = Context(key_);
    context->AddMetadata("idempotency-key", "k");
    const grpc::Status status = groups->CreateAvailabilityGroup(context.get(), request, answer);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_EQ(first.id(), second.id());
}

}  // namespace
}  // namespace bunker::controller
