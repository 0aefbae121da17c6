#include "agent/cache/blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <latch>
#include <thread>

#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
using ::testing::HasSubstr;
using ::testing::SizeIs;

class BlobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path().string() + "/bunker-blobs-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    store_ = *BlobStore::Open(folder_);
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Reopen() {
    store_.reset();
    auto store = BlobStore::Open(folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  // A fetch that writes `content` from the writer's offset on.
  oci::BlobCache::Fetch Writes(const std::string& content) {
    return [this, content](oci::BlobWriter& writer) {
      ++fetches_;
      return writer.Write(std::string_view(content).substr(writer.offset()));
    };
  }
  static oci::BlobCache::Fetch Fails(const std::string& reason, const std::string& first = "") {
    return [=](oci::BlobWriter& writer) {
      if (!first.empty()) (void)writer.Write(first);
      return ReasonError(absl::StatusCode::kUnavailable, reason, "it failed");
    };
  }

  absl::StatusOr<std::shared_ptr<const oci::Blob>> Get(const std::string& content,
                                                       const oci::BlobCache::Fetch& fetch,
                                                       const std::string& origin = "here") {
    return store_->GetOrFetch(oci::Digest::Of(content), content.size(), origin, fetch, nullptr);
  }

  bool PartialIsEmpty() const { return std::filesystem::is_empty(folder_ + "/partial"); }
  std::string PartialOf(const std::string& content) const {
    return folder_ + "/partial/" + oci::Digest::Of(content).hex();
  }

  std::string folder_;
  std::unique_ptr<BlobStore> store_;
  std::atomic<int> fetches_{0};
};

TEST_F(BlobStoreTest, KeepsWhatItFetchedOnce) {
  for (const std::string& content : {std::string("hello"), std::string()}) {
    fetches_ = 0;
    for (int i = 0; i < 2; ++i) {
      const auto blob = Get(content, Writes(content));
      ASSERT_TRUE(blob.ok()) << blob.status();
      EXPECT_EQ(*ReadFile((*blob)->path(), 100), content);
    }
    EXPECT_EQ(fetches_, content.empty() ? 0 : 1);
  }
  EXPECT_TRUE(PartialIsEmpty());
  Reopen();
  EXPECT_THAT(store_->List(), SizeIs(2));
  EXPECT_EQ(store_->UsedBytes(), 5u);
  ASSERT_NE(store_->Find(oci::Digest::Of("hello")), nullptr);
}

TEST_F(BlobStoreTest, RefusesOtherContent) {
  EXPECT_EQ(ReasonOf(Get("hello", Writes("jello")).status()), "DIGEST_MISMATCH");
  EXPECT_EQ(ReasonOf(Get("hello", Writes("hello!")).status()), "DIGEST_MISMATCH");
  EXPECT_EQ(ReasonOf(Get("hello", Writes("hell")).status()), "DIGEST_MISMATCH");
  EXPECT_THAT(store_->List(), SizeIs(0));
  EXPECT_TRUE(PartialIsEmpty());
  ASSERT_TRUE(Get("hello", Writes("hello")).ok());
  const auto other_size = store_->GetOrFetch(oci::Digest::Of("hello"), 6, "", Writes("hello!"),
                                             nullptr);
  EXPECT_EQ(ReasonOf(other_size.status()), "DIGEST_MISMATCH");
}

TEST_F(BlobStoreTest, ContinuesAfterAFailureAndARestart) {
  EXPECT_EQ(ReasonOf(Get("hello world", Fails("REGISTRY_UNREACHABLE", "hello")).status()),
            "REGISTRY_UNREACHABLE");
  Reopen();
  const auto blob = Get("hello world", [](oci::BlobWriter& writer) {
    EXPECT_EQ(writer.offset(), 5u);
    return writer.Write(" world");
  });
  EXPECT_TRUE(blob.ok()) << blob.status();
}

TEST_F(BlobStoreTest, StartsOverFromDamagedLeftovers) {
  for (const std::string left : {"jello", "hello", "much more than it can be"}) {
    std::ofstream(PartialOf("hello")) << left;
    const auto blob = Get("hello", Writes("hello"));
    ASSERT_TRUE(blob.ok()) << blob.status();
    EXPECT_EQ(*ReadFile((*blob)->path(), 100), "hello");
    const oci::Digest digest = (*blob)->digest();
    ASSERT_TRUE(store_->Discard(digest).ok());
  }
}

TEST_F(BlobStoreTest, ForgetsBytesThatNobodyWillContinue) {
  EXPECT_FALSE(Get("hello", Fails("LAYER_CORRUPT", "hel")).ok());
  EXPECT_TRUE(PartialIsEmpty());
  EXPECT_FALSE(Get("hello", Fails("REGISTRY_UNREACHABLE")).ok());
  EXPECT_TRUE(PartialIsEmpty());
}

TEST_F(BlobStoreTest, SharesOneDownload) {
  std::latch start(16);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      start.arrive_and_wait();
      if (Get("shared", Writes("shared")).ok()) ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 16);
  EXPECT_EQ(fetches_, 1);
}

// A fetch that waits until `waiting` others can only wait for it, then fails with `reason`.
class SlowFailure {
 public:
  explicit SlowFailure(std::string reason) : reason_(std::move(reason)) {}
  absl::Status operator()(oci::BlobWriter&) {
    started_.count_down();
    release_.wait();
    return ReasonError(absl::StatusCode::kUnavailable, reason_, "it failed");
  }
  std::latch started_{1};
  std::latch release_{1};

 private:
  const std::string reason_;
};

TEST_F(BlobStoreTest, SharesAFailureWithinOneOriginOnly) {
  struct Row {
    std::string reason, other_origin;
    bool succeeds;
  };
  for (const Row& row : {Row{"REGISTRY_AUTH_FAILED", "a", false},
                         Row{"REGISTRY_AUTH_FAILED", "b", true}, Row{"CANCELLED", "a", true}}) {
    SlowFailure failure(row.reason);
    std::thread leader([&] { EXPECT_FALSE(Get("x", std::ref(failure), "a").ok()); });
    failure.started_.wait();
    std::latch asking(1);
    bool succeeded = false;
    std::thread follower([&] {
      succeeded = store_->GetOrFetch(oci::Digest::Of("x"), 1, row.other_origin, Writes("x"),
                                     [&, calls = 0]() mutable {
                                       if (++calls == 2) asking.count_down();
                                       return false;
                                     }).ok();
    });
    asking.wait();  // its second look at `stop` is made while it waits
    failure.release_.count_down();
    leader.join();
    follower.join();
    EXPECT_EQ(succeeded, row.succeeds) << row.reason << " " << row.other_origin;
    ASSERT_TRUE(store_->Remove(oci::Digest::Of("x")).ok());
  }
}

// Whoever asks another place takes over from a slow one, and goes on from where it came to.
TEST_F(BlobStoreTest, ASlowPlaceHoldsUpNobodyElse) {
  store_.reset();
  store_ = *BlobStore::Open(folder_, absl::Hours(24), absl::Milliseconds(50));
  const std::string content(100'000, 'x');
  std::latch began(1);
  std::atomic<int> slow_fetches{0};
  const auto slow = [&](oci::BlobWriter& writer) -> absl::Status {
    ++slow_fetches;
    RETURN_IF_ERROR(writer.Write(content.substr(0, 10)));
    began.count_down();
    while (!writer.ShouldYield()) std::this_thread::yield();
    return ReasonError(absl::StatusCode::kCancelled, "CANCELLED", "another's turn");
  };
  std::vector<std::thread> slow_ones;
  std::atomic<int> right{0};
  for (int i = 0; i < 3; ++i)
    slow_ones.emplace_back([&] { right += Get(content, slow, "slow").ok(); });
  began.wait();
  uint64_t from = 0;
  const auto fast = [&](oci::BlobWriter& writer) {
    from = writer.offset();
    return writer.Write(content.substr(from));
  };
  EXPECT_TRUE(Get(content, fast, "fast").ok());
  for (std::thread& thread : slow_ones) thread.join();
  EXPECT_EQ(from, 10u);
  EXPECT_EQ(right, 3);
  EXPECT_EQ(slow_fetches, 1);
  EXPECT_TRUE(PartialIsEmpty());
}

TEST_F(BlobStoreTest, StopsWaiting) {
  SlowFailure failure("REGISTRY_UNREACHABLE");
  std::thread leader([&] { EXPECT_FALSE(Get("x", std::ref(failure), "a").ok()); });
  failure.started_.wait();
  const auto blob = store_->GetOrFetch(oci::Digest::Of("x"), 1, "a", Writes("x"),
                                       [calls = 0]() mutable { return ++calls > 1; });
  EXPECT_EQ(ReasonOf(blob.status()), "CANCELLED");
  failure.release_.count_down();
  leader.join();
}

TEST_F(BlobStoreTest, DoesNotRemoveWhatIsPinned) {
  auto blob = *Get("hello", Writes("hello"));
  const oci::Digest digest = blob->digest();
  EXPECT_FALSE(store_->Remove(digest).ok());
  EXPECT_EQ(store_->List().front().pins, 1u);
  blob.reset();
  EXPECT_EQ(store_->List().front().pins, 0u);
  EXPECT_TRUE(store_->Remove(digest).ok());
  EXPECT_TRUE(store_->Remove(digest).ok());
  EXPECT_EQ(store_->Find(digest), nullptr);
}

TEST_F(BlobStoreTest, KeepsPinsOfADiscardedBlobApart) {
  auto old_blob = *Get("hello", Writes("hello"));
  ASSERT_TRUE(store_->Discard(old_blob->digest()).ok());
  auto new_blob = *Get("hello", Writes("hello"));
  EXPECT_EQ(fetches_, 2);
  old_blob.reset();
  EXPECT_EQ(store_->List().front().pins, 1u);
  EXPECT_FALSE(store_->Remove(new_blob->digest()).ok());
  store_.reset();  // a pin may outlive the store
}

TEST_F(BlobStoreTest, CleansUpWhatDoesNotBelong) {
  ASSERT_TRUE(Get("hello", Writes("hello")).ok());
  std::ofstream(folder_ + "/sha256/stray") << "x";
  std::filesystem::create_directory(folder_ + "/sha256/" + std::string(64, 'a'));
  std::filesystem::create_symlink("/etc/hostname", folder_ + "/sha256/" + std::string(64, 'b'));
  std::ofstream(folder_ + "/partial/x.tmp") << "x";
  std::ofstream(PartialOf("old")) << "o";
  std::filesystem::last_write_time(PartialOf("old"),
                                   std::filesystem::file_time_type::clock::now() -
                                       std::chrono::hours(48));
  std::ofstream(PartialOf("new")) << "n";
  Reopen();
  EXPECT_THAT(store_->List(), SizeIs(1));
  EXPECT_TRUE(std::filesystem::exists(PartialOf("new")));
  EXPECT_FALSE(std::filesystem::exists(PartialOf("old")));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/sha256/stray"));
  EXPECT_TRUE(std::filesystem::exists("/etc/hostname"));
}

TEST_F(BlobStoreTest, BelongsToOneProcess) {
  const auto second = BlobStore::Open(folder_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(BlobStoreTest, ReportsAWriteThatFails) {
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string content(5000, 'x');
  const auto blob = Get(content, Writes(content));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(ReasonOf(blob.status()), "INTERNAL");  // EFBIG is no full disk
  EXPECT_TRUE(PartialIsEmpty());
}

// In a mount namespace of its own: a file system of 1 MiB.
TEST_F(BlobStoreTest, ReportsAFullDiskAndLeavesNothing) {
  store_.reset();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::unshare(::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) ::_exit(10);
    (void)::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    if (::mount("none", folder_.c_str(), "tmpfs", 0, "size=1m") != 0) ::_exit(11);
    auto store = BlobStore::Open(folder_);
    if (!store.ok()) ::_exit(12);
    const std::string big(3u << 20, 'x'), small(100'000, 'y');
    const auto get = [&](const std::string& content) {
      return (*store)->GetOrFetch(oci::Digest::Of(content), content.size(), "", Writes(content),
                                  nullptr);
    };
    if (ReasonOf(get(big).status()) != "DISK_FULL" || fetches_ != 0) ::_exit(13);
    const std::string half(600'000, 'z');
    const auto squeezed = [&](oci::BlobWriter& writer) {  // somebody else takes the room meanwhile
      std::ofstream(folder_ + "/filler") << half;
      return writer.Write(half);
    };
    const auto late = (*store)->GetOrFetch(oci::Digest::Of(half), half.size(), "", squeezed,
                                           nullptr);
    if (ReasonOf(late.status()) != "DISK_FULL") ::_exit(16);
    std::filesystem::remove(folder_ + "/filler");
    if (!PartialIsEmpty()) ::_exit(14);
    ::_exit(get(small).ok() ? 0 : 15);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A child that stores blobs is killed at arbitrary moments; what has its name is whole.
TEST_F(BlobStoreTest, IsWholeAfterAnyKill) {
  store_.reset();
  std::vector<std::string> contents;
  for (int i = 0; i < 40; ++i) contents.push_back(std::string(200'000 + i, static_cast<char>(i)));
  for (int round = 0; round < 15; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = BlobStore::Open(folder_);
      if (!store.ok()) ::_exit(1);
      for (const std::string& content : contents) {
        (void)(*store)->GetOrFetch(oci::Digest::Of(content), content.size(), "", Writes(content),
                                   nullptr);
      }
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(1000 + 1700 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    Reopen();
    for (const BlobInfo& info : store_->List()) {
      const auto content = ReadFile(store_->Find(info.digest)->path(), 1u << 20);
      ASSERT_TRUE(content.ok());
      EXPECT_EQ(oci::Digest::Of(*content), info.digest);
    }
    for (const auto& info : store_->List()) ASSERT_TRUE(store_->Remove(info.digest).ok());
    store_.reset();
  }
  Reopen();
}

}  // namespace
}  // namespace bunker::agent
