// A folder of its own for one test, removed with it.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

#include "gtest/gtest.h"

namespace bunker {

class TempDir {
 public:
  TempDir() {
    std::string name = testing::TempDir() + "bunker-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace bunker
