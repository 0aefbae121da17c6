#include "controller/rest/json_codec.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "bunker/v1/bunker.pb.h"
#include "bunker/v1/image.pb.h"
#include "controller/rest/envelope.h"

namespace bunker::controller {
namespace {

// "field: message" of everything refused.
std::map<std::string, std::string> Read(const std::string& text, google::protobuf::Message* message,
                                        const std::set<std::string>& reserved = {}) {
  JsonValue json;
  JsonError error;
  EXPECT_TRUE(ParseJson(text, JsonLimits(), &json, &error)) << error.message;
  std::vector<FieldViolation> violations;
  JsonToMessage(json, reserved, message, &violations);
  std::map<std::string, std::string> out;
  for (const FieldViolation& violation : violations) out[violation.field] = violation.message;
  return out;
}

TEST(JsonReaderTest, ReadsARegistration) {
  v1::RegisterImageRequest request;
  EXPECT_TRUE(Read(R"({"name":"r-stats","build_source":{"kind":"oci","ref":"docker.io/r-base:4.4"},
                       "size_mib":4096,"default_disk_mb":8192,"preinstalled":["R","dplyr"],
                       "scope":"platform","arch":"AARCH64","resource_category":["CPU"],
                       "lazy_pull":true,"description":null})", &request).empty());
  EXPECT_EQ(request.name(), "r-stats");
  EXPECT_EQ(request.build_source().kind(), v1::BuildSource::KIND_OCI);
  EXPECT_EQ(request.size_mib(), 4096u);
  EXPECT_EQ(request.default_disk_mb(), 8192u);
  EXPECT_EQ(request.preinstalled_size(), 2);
  EXPECT_EQ(request.scope(), v1::SCOPE_PLATFORM);
  EXPECT_EQ(request.arch(), v1::ARCH_AARCH64);
  EXPECT_TRUE(request.lazy_pull());
}

TEST(JsonReaderTest, NamesEachFieldThatDoesNotFit) {
  v1::RegisterImageRequest request;
  const auto refused = Read(
      R"({"nme":"x","sizeMib":1,"size_mib":"4096","lazy_pull":1,"preinstalled":["a",7],
          "build_source":{"kind":"OCI","extra":1},"scope":"galaxy","arch":"x86_64",
          "default_memory_mb":1.5,"default_disk_mb":-1,"default_cpu_millicores":4294967296})",
      &request);
  EXPECT_EQ(refused.at("nme"), "is no field here; remove it");
  EXPECT_EQ(refused.at("sizeMib"), "is no field here; it is spelled size_mib");
  EXPECT_EQ(refused.at("size_mib"), "must be a number, not a string; write it without quotes");
  EXPECT_EQ(refused.at("lazy_pull"), "must be a boolean, not a number");
  EXPECT_EQ(refused.at("preinstalled[1]"), "must be a string, not a number");
  EXPECT_EQ(refused.at("build_source.kind"), "is not a value of this field; it takes oci, tar");
  EXPECT_EQ(refused.at("build_source.extra"), "is no field here; remove it");
  EXPECT_EQ(refused.at("scope"),
            "is not a value of this field; it takes tenant, partner, platform");
  EXPECT_EQ(refused.at("arch"), "is not a value of this field; it takes X86_64, AARCH64");
  EXPECT_EQ(refused.count("default_memory_mb"), 1u);
  EXPECT_EQ(refused.count("default_disk_mb"), 1u);
  EXPECT_EQ(refused.count("default_cpu_millicores"), 1u);
  EXPECT_EQ(refused.size(), 12u);
}

TEST(JsonReaderTest, SixtyFourBitNumbersKeepEveryDigit) {
  v1::BunkerSpec spec;
  EXPECT_TRUE(Read(R"({"max_lifetime_s":18446744073709551615})", &spec).empty());
  EXPECT_EQ(spec.max_lifetime_s(), UINT64_MAX);
  EXPECT_EQ(Read(R"({"max_lifetime_s":18446744073709551616})", &spec).size(), 1u);
  EXPECT_EQ(Read(R"({"max_lifetime_s":1e3})", &spec).size(), 1u);
}

TEST(JsonReaderTest, ACommandIsALineOrAList) {
  v1::ExecRequest request;
  EXPECT_TRUE(Read(R"({"command":"echo $HOME"})", &request).empty());
  EXPECT_EQ(request.command().shell(), "echo $HOME");
  v1::ExecRequest other;
  EXPECT_TRUE(Read(R"({"command":["ls","-l","a b"]})", &other).empty());
  ASSERT_EQ(other.command().argv_size(), 3);
  EXPECT_EQ(other.command().argv(2), "a b");
  EXPECT_EQ(Read(R"({"command":{"shell":"x"}})", &other).at("command"),
            "must be a string or a list of strings, not an object");
}

TEST(JsonReaderTest, FieldsOfThePathAreNoFieldsOfTheBody) {
  v1::ExecRequest request;
  EXPECT_EQ(Read(R"({"bunker":"other","command":"x"})", &request, {"bunker"}).at("bunker"),
            "is no field here; remove it");
}

TEST(JsonReaderTest, MapsHoldStrings) {
  v1::BunkerSpec spec;
  EXPECT_TRUE(Read(R"({"env_vars":{"A":"1","":"x"}})", &spec).empty());
  EXPECT_EQ(spec.env_vars().at("A"), "1");
  v1::BunkerSpec other;
  EXPECT_EQ(Read(R"({"env_vars":{"A":1}})", &other).at("env_vars.A"),
            "must be a string, not a number");
  EXPECT_EQ(Read(R"({"env_vars":{"A":null}})", &other).count("env_vars.A"), 1u);
  EXPECT_EQ(Read(R"({"env_vars":["A"]})", &other).at("env_vars"),
            "must be an object, not a list");
}

TEST(JsonReaderTest, ABodyThatIsNoObject) {
  v1::BunkerSpec spec;
  EXPECT_EQ(Read("[]", &spec).at(""), "the body must be a JSON object, not a list");
}

TEST(JsonReaderTest, QueryParameters) {
  v1::ListBunkersRequest request;
  std::vector<FieldViolation> violations;
  SetFieldFromText("limit", "10", &request, &violations);
  SetFieldFromText("status", "running", &request, &violations);
  SetFieldFromText("label.team", "blue", &request, &violations);
  EXPECT_TRUE(violations.empty());
  EXPECT_EQ(request.limit(), 10u);
  EXPECT_EQ(request.status(), v1::BUNKER_STATUS_RUNNING);
  EXPECT_EQ(request.label().at("team"), "blue");
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{
           {"limit", "ten"}, {"limit", ""}, {"limit", "-1"}, {"status", "RUNNING"},
           {"label", "x"}, {"label.", "x"}, {"nope", "1"}, {"limit.x", "1"}}) {
    violations.clear();
    SetFieldFromText(name, text, &request, &violations);
    EXPECT_EQ(violations.size(), 1u) << name << "=" << text;
  }
}

TEST(JsonWriterTest, ZeroAndEmptyArePresentAbsentIsNull) {
  v1::WarmSummary warm;
  std::string out;
  AppendMessageJson(&out, warm);
  EXPECT_EQ(out, R"({"queued":0,"ready":0,"failed":0,"skipped":0})");
  v1::CacheRow row;
  row.set_worker_id("wrk_1");
  row.set_status(v1::CACHE_STATUS_BUILDING);
  row.set_bytes_done(1ull << 60);
  row.set_eta_s(1.5);
  row.mutable_updated_at()->set_seconds(1'767'225'600);
  row.mutable_updated_at()->set_nanos(250'000'000);
  out.clear();
  AppendMessageJson(&out, row);
  EXPECT_EQ(out,
            R"({"worker_id":"wrk_1","worker_name":"","status":"building","stage":null,)"
            R"("bytes_done":1152921504606846976,"bytes_total":null,"rate_bytes_per_s":null,)"
            R"("eta_s":1.5,"source":null,"rootfs_digest":null,"attempt":0,"error":null,)"
            R"("updated_at":"2026-01-01T00:00:00.250Z"})");
}

TEST(JsonWriterTest, MapsAreOrderedAndEnumsSpelledAsInTheContract) {
  v1::Image image;
  (*image.mutable_env())["B"] = "2";
  (*image.mutable_env())["A"] = "1";
  image.set_arch(v1::ARCH_X86_64);
  image.set_scope(v1::SCOPE_TENANT);
  image.set_origin(v1::ORIGIN_CUSTOMIZE);
  image.add_resource_category(v1::RESOURCE_CATEGORY_CPU);
  std::string out;
  AppendMessageJson(&out, image);
  for (const char* part : {R"("env":{"A":"1","B":"2"})", R"("arch":"X86_64")",
                           R"("scope":"tenant")", R"("origin":"CUSTOMIZE")",
                           R"("resource_category":["CPU"])", R"("initrd_or_rom":false)",
                           R"("scan_status":null)", R"("args":[])"})
    EXPECT_NE(out.find(part), std::string::npos) << part << " in " << out;
}

TEST(EnvelopeTest, Golden) {
  v1::WarmSummary warm;
  warm.set_ready(2);
  EXPECT_EQ(OkEnvelope(warm, "req_1"),
            R"({"status":"ok","data":{"queued":0,"ready":2,"failed":0,"skipped":0},)"
            R"("meta":{"request_id":"req_1"}})");
  v1::ListBunkersResponse list;
  EXPECT_EQ(OkEnvelope(list, "req_2"),
            R"({"status":"ok","data":[],"has_more":false,"next_cursor":null,)"
            R"("meta":{"request_id":"req_2"}})");
  EXPECT_EQ(ErrorEnvelope(ViewOf(ValidationError("size_mib", "must be from 16 to 1048576, not 1")),
                          "req_3"),
            R"({"status":"error","error":{"code":"VALIDATION_ERROR",)"
            R"("message":"size_mib: must be from 16 to 1048576, not 1",)"
            R"("details":[{"field":"size_mib","message":"must be from 16 to 1048576, not 1"}]},)"
            R"("meta":{"request_id":"req_3"}})");
  EXPECT_EQ(ErrorEnvelope(ViewOf(WithRetryAfter(ApiError("RATE_LIMITED", "too fast"),
                                                absl::Milliseconds(10))), "req_4"),
            R"({"status":"error","error":{"code":"RATE_LIMITED","message":"too fast",)"
            R"("retry_after":1},"meta":{"request_id":"req_4"}})");
  v1::PlacementFailure failure;
  auto* detail = failure.add_details();
  detail->set_worker_id("wrk_1");
  detail->set_worker_name("w1");
  detail->set_predicate("memory");
  detail->set_shortfall("12 MiB");
  detail->set_remedy("ask for less");
  (*failure.mutable_counts())["memory"] = 1;
  EXPECT_EQ(ErrorEnvelope(ViewOf(WithPlacement(ApiError("WORKER_UNAVAILABLE", "no room"), failure)),
                          "req_5"),
            R"({"status":"error","error":{"code":"WORKER_UNAVAILABLE","message":"no room",)"
            R"("details":[{"worker_id":"wrk_1","worker_name":"w1","predicate":"memory",)"
            R"("shortfall":"12 MiB","remedy":"ask for less","eta_s":null}],"counts":{"memory":1}},)"
            R"("meta":{"request_id":"req_5"}})");
}

}  // namespace
}  // namespace bunker::controller
