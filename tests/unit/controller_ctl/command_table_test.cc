#include "controller/ctl/command_table.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "controller/ctl/commands.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

TEST(CommandTableTest, EveryRowIsWhole) {
  std::set<std::string> seen;
  for (const CommandRow& row : CommandTable()) {
    const std::string name = std::string(row.noun) + " " + row.verb;
    EXPECT_TRUE(seen.insert(name).second) << name;
    EXPECT_EQ(row.show == Show::kTable || row.show == Show::kWhole, !row.columns.empty()) << name;
    EXPECT_NE(std::string(row.help), "") << name;
    if (std::string(row.verb) != "") {
      EXPECT_NE(std::string(NounHelp(row.noun)), "") << name;
    }
    // Each {name} of the path is an argument.
    const std::string path = row.path;
    for (size_t at = path.find('{'); at != std::string::npos; at = path.find('{', at + 1)) {
      const std::string variable = path.substr(at + 1, path.find('}', at) - at - 1);
      bool found = false;
      for (const char* argument : row.arguments) found = found || variable == argument;
      EXPECT_TRUE(found) << name << " has no argument " << variable;
    }
    std::set<std::string> flags;
    for (const Flag& flag : row.flags) EXPECT_TRUE(flags.insert(flag.name).second) << name;
  }
  EXPECT_GE(seen.size(), 60u);
}

TEST(CommandTableTest, APathTakesWhateverWasTyped) {
  EXPECT_EQ(FillPath("/images/{image}/scan", {{"image", "a/b:1"}}), "/images/a%2Fb%3A1/scan");
  EXPECT_EQ(FillPath("/v1/groups/{group}/members/{user}", {{"group", ".."}, {"user", "?x"}}),
            "/v1/groups/" + Segment("..") + "/members/%3Fx");
}

TEST(CommandTableTest, ARowIsShownWithoutWhatIsAbsent) {
  const nlohmann::json row = {{"id", "k\x1b[2J"},
                              {"none", nullptr},
                              {"list", {"a", "b"}},
                              {"cap", {{"cpu", 4}}},
                              {"rows", {{{"v", 1}}, {{"v", 2}}}}};
  EXPECT_EQ(DescribeRow(row),
            "cap.cpu    4\nid         k?[2J\nlist       a,b\nrows[0].v  1\nrows[1].v  2\n");
}

TEST(CommandTableTest, SizesAreReadAsPeopleWriteThem) {
  EXPECT_EQ(*ParseMemory("512MiB", "-m"), 512u);
  EXPECT_EQ(*ParseMemory("512", "-m"), 512u);
  EXPECT_EQ(*ParseMemory("2GiB", "-m"), 2048u);
  for (const char* wrong : {"", "MiB", "1.5GiB", "-1", "512 MiB", "9999999999999999999G"})
    EXPECT_FALSE(ParseMemory(wrong, "-m").ok()) << wrong;
}

}  // namespace
}  // namespace bunker::ctl
