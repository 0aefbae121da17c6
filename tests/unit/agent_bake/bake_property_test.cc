// Random stacks of layers against the naive model: every path, type, mode, owner, content, and who
// is linked to whom. BUNKER_BAKE_STACKS sets how many, BUNKER_BAKE_SEED where to start.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "common/base/reason.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/naive_model.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

// Few names, so that members meet each other.
class StackMaker {
 public:
  explicit StackMaker(uint64_t seed) : random_(seed) {}

  // Mostly stacks that mean something: of the members that would make nonsense few are kept.
  std::vector<std::vector<TarEntry>> Make() {
    std::vector<std::vector<TarEntry>> stack;
    const size_t layers = 2 + random_() % 3;
    for (size_t l = 0; l < layers; ++l) {
      stack.emplace_back();
      const size_t members = 1 + random_() % 8;
      for (size_t i = 0; i < members; ++i) {
        stack.back().push_back(Member());
        if (random_() % 100 != 0 && !Meaningful(stack)) stack.back().pop_back();
      }
      if (random_() % 64 == 0) AddBigFolder(&stack);
    }
    return stack;
  }

  static bool Meaningful(const std::vector<std::vector<TarEntry>>& stack) {
    NaiveModel model;
    for (const auto& layer : stack) {
      if (!model.ApplyLayer(layer)) return false;
    }
    return true;
  }

 private:
  // So many names that the folder needs an index; upper layers take some away.
  void AddBigFolder(std::vector<std::vector<TarEntry>>* stack) {
    const std::string folder = Path();
    const std::string whiteout = random_() % 3 == 0 ? ".wh." : "";
    const size_t names = 100 + random_() % 200;
    for (size_t i = 0; i < names; ++i) {
      stack->back().push_back({.name = folder + "/" + whiteout + "name-" + std::to_string(i) +
                                       std::string(i % 40, 'n')});
    }
    if (!Meaningful(*stack)) stack->back().resize(stack->back().size() - names);
  }
  std::string Path() {
    static const char* const kNames[] = {"a", "b", "c"};
    // Below what is, or was, a link somewhere in the stack.
    if (!links_.empty() && random_() % 4 == 0) {
      return links_[random_() % links_.size()] + "/" + kNames[random_() % 3];
    }
    std::string path = random_() % 16 == 0 ? "./" : random_() % 16 == 0 ? "/" : "";
    const size_t depth = 1 + random_() % 3;
    for (size_t i = 0; i < depth; ++i) path += (i ? "/" : "") + std::string(kNames[random_() % 3]);
    return path;
  }
  std::string InFolder(const std::string& file) {
    return random_() % 4 == 0 ? file : Path() + "/" + file;
  }
  TarEntry Member() {
    TarEntry entry;
    entry.uid = random_() % 100'000;
    entry.gid = random_() % 4 == 0 ? 4'000'000'000 : 7;
    entry.mtime = static_cast<int64_t>(random_() % 4'000'000'000) - 2'000'000'000;
    entry.mode = 0600 | (random_() % 64);
    while (random_() % 4 == 0) {
      static constexpr size_t kSizes[] = {0, 1, 30, 700, 3000, 9000};
      entry.pax.emplace_back("SCHILY.xattr.user." + std::string(1 + random_() % 3, 'x'),
                             std::string(kSizes[random_() % 6], 'v'));
    }
    entry.name = Path();
    switch (random_() % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        entry.data = std::string(random_() % 3 * 3000, static_cast<char>('A' + random_() % 26));
        break;
      case 5:
      case 6:
      case 7:
      case 8:
        entry.type = '5';
        if (random_() % 10 == 0) entry.name = "./";
        break;
      case 9:
      case 10:
        entry.type = '2';
        entry.link = (random_() % 3 == 0 ? "/" : random_() % 3 == 0 ? "../" : "") + Path();
        if (entry.link.rfind("./", 0) == 0 && random_() % 2) entry.link = "../../" + entry.link;
        links_.push_back(entry.name);
        break;
      case 11:
      case 12:
        entry.type = '1';
        entry.link = Path();
        break;
      case 13:
      case 14: {
        static const char* const kWhiteouts[] = {".wh.a", ".wh.b", ".wh.c"};
        entry.name = InFolder(kWhiteouts[random_() % 3]);
        break;
      }
      default:
        entry.name = InFolder(".wh..wh..opq");
    }
    return entry;
  }
  std::mt19937_64 random_;
  std::vector<std::string> links_;
};

std::string Describe(const std::vector<std::vector<TarEntry>>& stack) {
  std::string text;
  for (const auto& layer : stack) {
    text += "layer\n";
    for (const TarEntry& entry : layer) {
      text += std::string("  ") + entry.type + " " + entry.name +
              (entry.link.empty() ? "" : " -> " + entry.link) + "\n";
    }
  }
  return text;
}

using Groups = std::map<std::string, std::set<std::string>>;

// True where the model gave the stack a meaning.
bool CheckStack(const std::vector<std::vector<TarEntry>>& stack, bool fsck) {
  NaiveModel model;
  Baker baker;
  bool meaningful = true;
  for (const auto& layer : stack) {
    TarBuilder tar;
    for (const TarEntry& entry : layer) tar.Add(entry);
    baker.Layer(tar.Finish());
    meaningful = meaningful && model.ApplyLayer(layer);
  }
  const auto summary = baker.Run(64);
  if (!meaningful) {
    // The bake knows one thing more: targets that come later in their layer.
    if (!summary.ok()) {
      EXPECT_EQ(ReasonOf(summary.status()), "LAYER_UNSUPPORTED") << summary.status();
    }
    return false;
  }
  EXPECT_TRUE(summary.ok()) << summary.status();
  if (!summary.ok()) return true;
  const auto image = ReadImage(baker.image());
  std::map<const ModelFile*, std::set<std::string>> model_groups;
  std::map<uint32_t, std::set<std::string>> image_groups;
  for (const auto& [path, file] : model.paths()) {
    const auto found = image.find(path);
    EXPECT_NE(found, image.end()) << "missing: " << path;
    if (found == image.end()) continue;
    const ImageEntry& entry = found->second;
    EXPECT_EQ(entry.type, file->type) << path;
    EXPECT_EQ(entry.content, file->content) << path;
    EXPECT_EQ(entry.mode, file->mode) << path;
    EXPECT_EQ(entry.uid, file->uid) << path;
    EXPECT_EQ(entry.gid, file->gid) << path;
    EXPECT_EQ(entry.mtime, file->mtime) << path;
    EXPECT_TRUE(entry.xattrs == file->xattrs) << path;
    model_groups[file.get()].insert(path);
    image_groups[entry.inode].insert(path);
  }
  EXPECT_EQ(image.size(), model.paths().size());
  std::set<std::set<std::string>> ours, theirs;
  for (const auto& [inode, paths] : image_groups) ours.insert(paths);
  for (const auto& [file, paths] : model_groups) theirs.insert(paths);
  EXPECT_EQ(ours, theirs);
  if (fsck) {
    EXPECT_EQ(CheckImage(baker.image()), "");
  }
  return true;
}

TEST(BakeProperty, RandomStacksAgreeWithTheNaiveModel) {
  setenv("TMPDIR", "/dev/shm", 0);  // thousands of files, each synced
  const uint64_t stacks = FromEnvironment("BUNKER_BAKE_STACKS", 1000);
  const uint64_t first = FromEnvironment("BUNKER_BAKE_SEED", 1);
  uint64_t meaningful = 0;
  for (uint64_t seed = first; seed < first + stacks; ++seed) {
    const auto stack = StackMaker(seed).Make();
    meaningful += CheckStack(stack, /*fsck=*/seed % 10 == 0) ? 1 : 0;
    if (HasFailure()) {
      FAIL() << "seed " << seed << "\n" << Describe(stack);
    }
  }
  RecordProperty("meaningful", std::to_string(meaningful));
  std::printf("%llu of %llu stacks had a meaning\n", static_cast<unsigned long long>(meaningful),
              static_cast<unsigned long long>(stacks));
  EXPECT_GT(meaningful, stacks / 2);
}

}  // namespace
}  // namespace bunker::agent::test
