#include "agent/commands/bake_source.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "agent/commands/exit_codes.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "tests/support/temp_dir.h"

namespace bunker::agent {
namespace {

TEST(BakeSource, AReferenceIsTakenAsItIs) {
  const auto source = ParseBakeSource("registry.example:5000/r-base:4.4");
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->spec.oci_ref, "registry.example:5000/r-base:4.4");
  EXPECT_EQ(source->tar_root, "");
}

TEST(BakeSource, ALayoutMayHaveANameAndAColonInItsPath) {
  const test::TempDir folder;
  const std::string plain = folder.File("layout"), colon = folder.File("lay:out");
  ASSERT_EQ(mkdir(plain.c_str(), 0700), 0);
  ASSERT_EQ(mkdir(colon.c_str(), 0700), 0);
  struct {
    std::string text, root, name;
  } const cases[] = {{plain, plain, ""},
                     {plain + ":v1", plain, "v1"},
                     {colon, colon, ""},
                     {colon + ":v1", colon, "v1"}};
  for (const auto& wanted : cases) {
    const auto source = ParseBakeSource("oci-layout:" + wanted.text);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(source->tar_root, wanted.root);
    EXPECT_EQ(source->spec.layout_name, wanted.name);
    EXPECT_EQ(source->spec.tar_path, ".");
    EXPECT_EQ(source->spec.scope, "platform");
  }
}

TEST(BakeSource, ATarIsReadBeneathItsOwnFolder) {
  const test::TempDir folder;
  const std::string file = folder.File("root.tar"), link = folder.File("link.tar");
  ASSERT_TRUE(WriteFileDurably(file, "x", 0600).ok());
  ASSERT_EQ(symlink(file.c_str(), link.c_str()), 0);
  for (const std::string& path : {file, link}) {
    const auto source = ParseBakeSource("tar:" + path);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(source->tar_root + "/" + source->spec.tar_path, file);
  }
}

TEST(BakeSource, WhatIsNotThereIsNamed) {
  const test::TempDir folder;
  for (const std::string& text :
       {"tar:" + folder.File("absent"), "oci-layout:" + folder.File("absent"),
        "tar:" + folder.File("")}) {
    const auto source = ParseBakeSource(text);
    ASSERT_FALSE(source.ok()) << text;
    EXPECT_EQ(ReasonOf(source.status()), "SOURCE_NOT_READABLE");
    EXPECT_EQ(ExitCodeOf(source.status()), kExitSource);
  }
}

TEST(ExitCodes, SayWhoseTurnItIs) {
  const auto code = [](const char* reason) {
    return ExitCodeOf(ReasonError(absl::StatusCode::kInternal, reason, "why"));
  };
  EXPECT_EQ(code("LAYER_UNSUPPORTED"), kExitImage);
  EXPECT_EQ(code("SIZE_CAP_EXCEEDED"), kExitImage);
  EXPECT_EQ(code("REGISTRY_AUTH_FAILED"), kExitSource);
  EXPECT_EQ(code("DISK_FULL"), kExitFailed);
  EXPECT_EQ(code("CANCELLED"), kExitCancelled);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("a wrong option")), kExitUsage);
}

}  // namespace
}  // namespace bunker::agent
