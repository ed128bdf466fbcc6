#include "os/certificate_authority.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

namespace agent_vm {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&::BIO_free_all)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&::EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&::X509_free)>;

constexpr long kDay = 24L * 60 * 60;
constexpr long kYears = 3650 * kDay;

tl::unexpected<Error> refuse(std::string_view what) {
  std::array<char, 256> text{};
  ::ERR_error_string_n(::ERR_get_error(), text.data(), text.size());
  return fail("{}: {}", what, text.data());
}

std::string content(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(size));
}

bool add_extension(X509* certificate, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, decltype(&::X509_EXTENSION_free)> extension(
      ::X509V3_EXT_conf_nid(nullptr, &context, kind, value), ::X509_EXTENSION_free);
  return extension && ::X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool name_it(X509* certificate, const std::string& common_name) {
  X509_NAME* name = ::X509_get_subject_name(certificate);
  const auto add = [&](const char* field, const std::string& text) {
    return ::X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                        reinterpret_cast<const unsigned char*>(text.c_str()), -1,
                                        -1, 0) == 1;
  };
  return add("O", "agent-vm") && add("CN", common_name) &&
         ::X509_set_issuer_name(certificate, name) == 1;
}

// A serial number of its own for each: two authorities of one name must not look the same.
bool number_it(X509* certificate) {
  const std::unique_ptr<BIGNUM, decltype(&::BN_free)> number(::BN_new(), ::BN_free);
  return number && ::BN_rand(number.get(), 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
         ::BN_to_ASN1_INTEGER(number.get(), ::X509_get_serialNumber(certificate)) != nullptr;
}

Result<Certificate> read_certificate(std::string_view pem) {
  const Bio text(::BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), ::BIO_free_all);
  Certificate certificate(
      text ? ::PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr) : nullptr, ::X509_free);
  if (!certificate) return refuse("cannot read a certificate");
  return certificate;
}

}  // namespace

Result<CertificateAuthority> make_certificate_authority(const std::string& common_name) {
  const Key key(::EVP_EC_gen("P-256"), ::EVP_PKEY_free);
  const Certificate certificate(::X509_new(), ::X509_free);
  if (!key || !certificate) return refuse("cannot make a key");
  X509* raw = certificate.get();
  const bool made = ::X509_set_version(raw, 2) == 1 && number_it(raw) &&
                    name_it(raw, common_name) &&
                    ::X509_gmtime_adj(X509_getm_notBefore(raw), -kDay) != nullptr &&
                    ::X509_gmtime_adj(X509_getm_notAfter(raw), kYears) != nullptr &&
                    ::X509_set_pubkey(raw, key.get()) == 1 &&
                    add_extension(raw, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
                    add_extension(raw, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                    add_extension(raw, NID_ext_key_usage, "serverAuth") &&
                    add_extension(raw, NID_subject_key_identifier, "hash") &&
                    ::X509_sign(raw, key.get(), ::EVP_sha256()) != 0;
  if (!made) return refuse("cannot make the certificate authority");

  const Bio key_text(::BIO_new(::BIO_s_mem()), ::BIO_free_all);
  const Bio certificate_text(::BIO_new(::BIO_s_mem()), ::BIO_free_all);
  if (!key_text || !certificate_text ||
      ::PEM_write_bio_PKCS8PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                      nullptr) != 1 ||
      ::PEM_write_bio_X509(certificate_text.get(), raw) != 1) {
    return refuse("cannot write the certificate authority");
  }
  return CertificateAuthority{content(key_text.get()), content(certificate_text.get())};
}

Result<std::chrono::seconds> lifetime_left(std::string_view certificate_pem) {
  const Certificate certificate = TRY(read_certificate(certificate_pem));
  int days = 0;
  int seconds = 0;
  if (::ASN1_TIME_diff(&days, &seconds, nullptr, ::X509_get0_notAfter(certificate.get())) != 1)
    return refuse("cannot read until when a certificate holds");
  return std::chrono::seconds(days * kDay + seconds);
}

Result<std::string> subject_hash(std::string_view certificate_pem) {
  const Certificate certificate = TRY(read_certificate(certificate_pem));
  return fmt::format("{:08x}", ::X509_subject_name_hash(certificate.get()));
}

}  // namespace agent_vm
