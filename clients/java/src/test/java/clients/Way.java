package clients;

import com.azure.core.credential.TokenCredential;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** A way to log in as an identity. */
interface Way extends AutoCloseable {
    /** Opens a connection, or has a pool open one. */
    Session login() throws SQLException;

    @Override
    default void close() {}

    String URL = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/postgres?sslmode=verify-full&sslrootcert="
            + System.getenv("PGSSLROOTCERT");
    String PLUGIN = "com.azure.identity.extensions.jdbc.postgresql.AzurePostgresqlAuthenticationPlugin";

    /** The settings of Microsoft's plugin for pgJDBC. */
    static Properties settings(String user, String identity) {
        var settings = new Properties();
        settings.setProperty("user", user);
        settings.setProperty("authenticationPluginClassName", PLUGIN);
        switch (identity) {
            case "shop-api" -> {
                settings.setProperty("azure.managedIdentityEnabled", "true");
                settings.setProperty("azure.clientId", System.getenv("SHOP_API_CLIENT_ID"));
            }
            case "reporting" -> settings.setProperty("azure.tokenCredentialProviderClassName", Providers.ServicePrincipal.class.getName());
            default -> {
                settings.setProperty("azure.tokenCredentialProviderClassName", Providers.Fixed.class.getName());
                settings.setProperty("azure.tokenCredentialCacheEnabled", "false");
            }
        }
        return settings;
    }

    static Way pgJDBC(String user, String identity) {
        return () -> {
            try (Connection connection = DriverManager.getConnection(URL, settings(user, identity))) {
                return Session.of(connection);
            }
        };
    }

    /** pgJDBC with the token as its password. */
    static Way password(String user, String identity) {
        var credential = identity.equals("shop-api") ? Providers.managedIdentity() : Providers.servicePrincipal();
        return () -> {
            String token = identity.equals("fixed") ? Providers.Fixed.token : Providers.token(credential, ClientsTest.DATABASE).getToken();
            try (Connection connection = DriverManager.getConnection(URL, user, token)) {
                return Session.of(connection);
            }
        };
    }

    static Way hikari(String user, String identity) {
        var config = new HikariConfig();
        config.setJdbcUrl(URL);
        config.setDataSourceProperties(settings(user, identity));
        config.setMaximumPoolSize(2);
        config.setConnectionTimeout(30_000);
        return new Pool(new HikariDataSource(config));
    }

    /** Spring Cloud Azure's passwordless starter, as in an application's properties. */
    static Way spring(String user, String identity) {
        Map<String, Object> properties = new HashMap<>();
        properties.put("spring.datasource.url", URL);
        properties.put("spring.datasource.username", user);
        properties.put("spring.datasource.azure.passwordless-enabled", "true");
        properties.put("spring.datasource.hikari.maximum-pool-size", "2");
        properties.put("spring.main.banner-mode", "off");
        properties.put("logging.level.root", "off");
        var application = new SpringApplication(Application.class);
        if (identity.equals("shop-api")) {
            properties.put("spring.cloud.azure.credential.managed-identity-enabled", "true");
            properties.put("spring.cloud.azure.credential.client-id", System.getenv("SHOP_API_CLIENT_ID"));
        } else {
            // The starter's own settings have no way to switch instance discovery off.
            properties.put("spring.datasource.azure.credential.token-credential-bean-name", "servicePrincipal");
        }
        application.setWebApplicationType(WebApplicationType.NONE);
        application.setDefaultProperties(properties);
        ConfigurableApplicationContext context = application.run();
        var pool = new Pool(context.getBean(HikariDataSource.class));
        return new Way() {
            @Override
            public Session login() throws SQLException {
                return pool.login();
            }

            @Override
            public void close() {
                context.close();
            }
        };
    }

    @Configuration
    @EnableAutoConfiguration
    class Application {
        @Bean
        TokenCredential servicePrincipal() {
            return Providers.servicePrincipal();
        }
    }

    record Pool(HikariDataSource pool) implements Way {
        @Override
        public Session login() throws SQLException {
            try (Connection connection = pool.getConnection()) {
                var session = Session.of(connection);
                pool.evictConnection(connection); // the pool replaces it
                return session;
            }
        }

        @Override
        public void close() {
            pool.close();
        }
    }
}
