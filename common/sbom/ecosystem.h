// How the world of advisories and bills of materials names what is installed in an image.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>

#include "bunker/scan/v1/inventory.pb.h"
#include "common/version/version.h"

namespace bunker {

// The rules by which versions of that kind are ordered. REQUIRES: a kind.
VersionScheme SchemeOf(scan::v1::Package::Kind kind);

// The ecosystem as OSV writes it: "Debian:12", "Alpine:v3.18", "PyPI". A distribution that OSV has
// no name for gives its own id and version ("fedora:40"), or "unknown" where it names none.
std::string EcosystemOf(const scan::v1::Distribution& distribution, scan::v1::Package::Kind kind);

// The name and version that advisories speak of: the source package's where the ecosystem names
// those (Debian, Ubuntu, Alpine), PyPI's normal form, the package's own else.
struct AdvisoryName {
  std::string name;
  std::string version;
};
AdvisoryName AdvisoryNameOf(const scan::v1::Package& package);

// PEP 503: lower case, runs of -, _ and . become one -.
std::string NormalPythonName(const std::string& name);

// pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc
std::string PurlOf(const scan::v1::Distribution& distribution, const scan::v1::Package& package);

}  // namespace bunker
