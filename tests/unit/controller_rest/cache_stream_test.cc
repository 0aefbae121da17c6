// The cache view as server-sent events, over a real socket.
#include <unistd.h>

#include <string>
#include <tuple>
#include <vector>

#include "common/base/unique_fd.h"
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

using CacheStreamTest = GatewayFixture;

TEST_F(CacheStreamTest, SnapshotThenChanges) {
  Boot();
  const std::string id =
      Call("POST", "/images", R"({"name": "x", "size_mib": 64,
           "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"}})").data()["id"];
  Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups/g/images", R"({"ref": "x"})");
  const std::string worker = JoinWorker("w1");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");

  const UniqueFd fd(OpenStream("/images/x/cache", key_));
  std::string got = ReadUntil(fd.get(), "event: synced");
  EXPECT_NE(got.find("HTTP/1.1 200 OK"), std::string::npos);
  EXPECT_NE(got.find("Content-Type: text/event-stream"), std::string::npos);
  EXPECT_NE(got.find("event: row\ndata: {\"worker_id\":\"" + worker), std::string::npos) << got;
  EXPECT_NE(got.find("\"status\":\"pending\""), std::string::npos);
  EXPECT_NE(got.find("id: "), std::string::npos);

  FinishBake(worker, id);
  got = ReadUntil(fd.get(), "\"status\":\"ready\"");
  EXPECT_NE(got.find("\"rootfs_digest\":\"fsverity-sha256:"), std::string::npos) << got;

  // A worker that is attached later begins to be told of.
  const std::string second = JoinWorker("w2");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w2"})");
  got = ReadUntil(fd.get(), second);
  EXPECT_NE(got.find("\"worker_name\":\"w2\""), std::string::npos);
}

TEST_F(CacheStreamTest, ErrorsBeforeTheStreamAreOrdinaryAnswers) {
  Boot();
  for (const auto& [path, key, code] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"/images/none/cache", key_, "NOT_FOUND"},
           {"/images/none/cache?limit=5", key_, "VALIDATION_ERROR"},
           {"/images/none/cache?cursor=x", key_, "VALIDATION_ERROR"},
           {"/images/none/cache", "sgk_no", "AUTH_TOKEN_INVALID"}}) {
    const UniqueFd fd(OpenStream(path, key));
    const std::string got = ReadUntil(fd.get(), "}}");
    EXPECT_NE(got.find(code), std::string::npos) << got;
    EXPECT_NE(got.find("application/json"), std::string::npos);
  }
}

}  // namespace
}  // namespace bunker::controller
