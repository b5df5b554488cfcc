package clients;

import com.azure.core.credential.AccessToken;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.ClientSecretCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.azure.identity.extensions.implementation.credential.TokenCredentialProviderOptions;
import com.azure.identity.extensions.implementation.credential.provider.TokenCredentialProvider;
import java.time.OffsetDateTime;
import reactor.core.publisher.Mono;

/** Credentials, and providers for azure.tokenCredentialProviderClassName. */
class Providers {
    private Providers() {}

    static TokenCredential managedIdentity() {
        return new ManagedIdentityCredentialBuilder().clientId(System.getenv("SHOP_API_CLIENT_ID")).build();
    }

    static TokenCredential servicePrincipal() {
        return new ClientSecretCredentialBuilder()
                .authorityHost(System.getenv("AZURE_AUTHORITY_HOST"))
                .tenantId(System.getenv("AZURE_TENANT_ID"))
                .clientId(System.getenv("REPORTING_CLIENT_ID"))
                .clientSecret(System.getenv("REPORTING_CLIENT_SECRET"))
                .disableInstanceDiscovery() // only Microsoft's own authorities are known to it
                .build();
    }

    static AccessToken token(TokenCredential credential, String resource) {
        return credential.getTokenSync(new TokenRequestContext().addScopes(resource + "/.default"));
    }

    /** A service principal without instance discovery, which the plugin's own settings cannot turn off. */
    public static class ServicePrincipal implements TokenCredentialProvider {
        public ServicePrincipal(TokenCredentialProviderOptions options) {}

        @Override
        public TokenCredential get(TokenCredentialProviderOptions options) {
            return get();
        }

        @Override
        public TokenCredential get() {
            return servicePrincipal();
        }
    }

    /** Always returns the same token. */
    public static class Fixed implements TokenCredentialProvider {
        static volatile String token;

        public Fixed(TokenCredentialProviderOptions options) {}

        @Override
        public TokenCredential get(TokenCredentialProviderOptions options) {
            return get();
        }

        @Override
        public TokenCredential get() {
            return request -> Mono.just(new AccessToken(token, OffsetDateTime.now().plusHours(1)));
        }
    }
}
