import ca.uhn.fhir.batch2.api.IJobMaintenanceService;
import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.batch2.jobs.export.BulkDataExportProvider;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.DaoRegistry;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.config.HibernatePropertiesProvider;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.config.util.ResourceCountCacheUtil;
import ca.uhn.fhir.jpa.dao.FulltextSearchSvcImpl;
import ca.uhn.fhir.jpa.dao.IFulltextSearchSvc;
import ca.uhn.fhir.jpa.dao.search.HSearchSortHelperImpl;
import ca.uhn.fhir.jpa.dao.search.IHSearchSortHelper;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.provider.DaoRegistryResourceSupportedSvc;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.search.IStaleSearchDeletingSvc;
import ca.uhn.fhir.jpa.search.StaleSearchDeletingSvcImpl;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.jpa.subscription.submit.config.SubscriptionSubmitterConfig;
import ca.uhn.fhir.jpa.util.ResourceCountCache;
import ca.uhn.fhir.rest.api.EncodingEnum;
import ca.uhn.fhir.rest.api.IResourceSupportedSvc;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.interceptor.RequestValidatingInterceptor;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import ca.uhn.fhir.validation.IValidatorModule;
import ca.uhn.fhir.validation.ResultSeverityEnum;
import jakarta.persistence.EntityManagerFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Properties;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.StatisticsHandler;
import org.eclipse.jetty.util.Callback;
import org.hibernate.dialect.Dialect;
import org.hl7.fhir.r4.model.Bundle;
import org.hl7.fhir.r4.model.Meta;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.ApplicationContext;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;
import org.springframework.transaction.annotation.EnableTransactionManagement;

/**
 * HAPI FHIR JPA as a server of R4 at http://127.0.0.1:PORT/fhir, for tests: hapi.py starts it.
 *
 * <p>{@code FhirTestServer PORT} (0: a free one) says {@code READY PORT MILLISECONDS} and serves until its standard
 * input ends. {@code -Ddb=jdbc:h2:FILE} keeps its data, {@code -Dvalidate=true} refuses resources that are not valid
 * (422). {@code GET /counters} tells how many requests and bytes of bodies there were.
 */
public class FhirTestServer {
  private static final int MAINTENANCE_MILLIS = 500;

  /** What a JPA server needs beside HAPI's own configuration classes. */
  @Configuration
  @EnableTransactionManagement
  @Import({
    JpaR4Config.class, JpaBatch2Config.class, Batch2JobsConfig.class, ThreadPoolFactoryConfig.class,
    SubscriptionSubmitterConfig.class, SubscriptionChannelConfig.class
  })
  public static class Config {
    @Bean
    public JpaStorageSettings storageSettings() {
      JpaStorageSettings settings = new JpaStorageSettings();
      // Also ids of digits alone, as the Azure service takes them.
      settings.setResourceClientIdStrategy(JpaStorageSettings.ClientIdStrategyEnum.ANY);
      settings.setResourceServerIdStrategy(JpaStorageSettings.IdStrategyEnum.UUID);
      settings.setAllowExternalReferences(true);
      settings.setEnforceReferentialIntegrityOnDelete(false);
      settings.setAllowMultipleDelete(true);
      settings.setHibernateSearchIndexFullText(false);
      settings.setHibernateSearchIndexSearchParams(false);
      // A test reads what it has just written.
      settings.setReuseCachedSearchResultsForMillis(null);
      // meta.source comes back as it was sent; HAPI appends "#" and the request's id by default.
      settings.setStoreMetaSourceInformation(JpaStorageSettings.StoreMetaSourceInformationEnum.SOURCE_URI);
      return settings;
    }

    @Bean
    public SubscriptionSettings subscriptionSettings() {
      return new SubscriptionSettings();
    }

    @Bean
    public PartitionSettings partitionSettings() {
      return new PartitionSettings();
    }

    @Bean
    public DataSource dataSource() {
      BasicDataSource source = new BasicDataSource();
      source.setDriver(new org.h2.Driver());
      source.setUrl(System.getProperty("db", "jdbc:h2:mem:fhir;DB_CLOSE_DELAY=-1"));
      source.setUsername("sa");
      source.setPassword("");
      source.setMaxTotal(20);
      return source;
    }

    @Bean
    @Primary
    public LocalContainerEntityManagerFactoryBean entityManagerFactory(
        ConfigurableListableBeanFactory beans, FhirContext fhir, JpaStorageSettings settings, DataSource source) {
      LocalContainerEntityManagerFactoryBean factory =
          HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, fhir, settings);
      factory.setPersistenceUnitName("HAPI_PU");
      factory.setDataSource(source);
      Properties properties = new Properties();
      properties.put("hibernate.dialect", HapiFhirH2Dialect.class.getName());
      properties.put("hibernate.hbm2ddl.auto", "update");
      properties.put("hibernate.jdbc.batch_size", "20");
      properties.put("hibernate.cache.use_query_cache", "false");
      properties.put("hibernate.cache.use_second_level_cache", "false");
      properties.put("hibernate.search.enabled", "false");
      factory.setJpaProperties(properties);
      return factory;
    }

    @Bean
    @Primary
    public JpaTransactionManager transactionManager(EntityManagerFactory factory) {
      return new JpaTransactionManager(factory);
    }

    @Bean
    @Primary
    public HibernatePropertiesProvider hibernateProperties() {
      return new HibernatePropertiesProvider() {
        private final Dialect dialect = new HapiFhirH2Dialect();

        @Override
        public Dialect getDialect() {
          return dialect;
        }
      };
    }

    // HAPI looks for it by this name; without it /metadata is a 500.
    @Bean(name = "myResourceCountsCache")
    public ResourceCountCache resourceCounts(IFhirSystemDao<?, ?> system) {
      return ResourceCountCacheUtil.newResourceCountCache(system);
    }

    @Bean
    public IFulltextSearchSvc fullText() {
      return new FulltextSearchSvcImpl();
    }

    @Bean
    public IStaleSearchDeletingSvc staleSearches() {
      return new StaleSearchDeletingSvcImpl();
    }

    @Bean
    public IResourceSupportedSvc supportedResources(DaoRegistry registry) {
      return new DaoRegistryResourceSupportedSvc(registry);
    }

    @Bean
    public IHSearchSortHelper sorting(ISearchParamRegistry registry) {
      return new HSearchSortHelperImpl(registry);
    }

    @Bean
    public DatabaseBackedPagingProvider paging() {
      DatabaseBackedPagingProvider provider = new DatabaseBackedPagingProvider();
      provider.setDefaultPageSize(50);
      provider.setMaximumPageSize(1000);
      return provider;
    }
  }

  /** Requests under /fhir and the bytes of their bodies, as they came and went. */
  private static final class Counters extends Handler.Abstract.NonBlocking {
    private final StatisticsHandler counted;

    Counters(StatisticsHandler counted) {
      this.counted = counted;
    }

    @Override
    public boolean handle(Request request, Response response, Callback callback) {
      if (!Request.getPathInContext(request).equals("/counters")) {
        return false;
      }
      String text = String.format(
          "{\"requests\":%d,\"received\":%d,\"sent\":%d}",
          counted.getRequestTotal(), counted.getBytesRead(), counted.getBytesWritten());
      response.getHeaders().put(HttpHeader.CONTENT_TYPE, "application/json");
      response.write(true, ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8)), callback);
      return true;
    }
  }

  public static void main(String[] args) {
    try {
      run(Integer.parseInt(args[0]));
      System.exit(0);
    } catch (Throwable problem) { // else the threads that HAPI has started would go on without a server
      problem.printStackTrace();
      System.exit(1);
    }
  }

  private static void run(int port) throws Exception {
    long began = System.currentTimeMillis();
    Server server = new Server();
    ServerConnector connector = new ServerConnector(server);
    connector.setHost("127.0.0.1");
    connector.setPort(port);
    server.addConnector(connector);
    connector.open(); // a port that is taken is seen before the ten seconds below
    AnnotationConfigApplicationContext beans = new AnnotationConfigApplicationContext(Config.class);
    serve(server, restServer(beans));
    keepJobsGoing(beans.getBean(IJobMaintenanceService.class));
    System.out.println("READY " + connector.getLocalPort() + " " + (System.currentTimeMillis() - began));
    while (System.in.read() >= 0) {
      // until the program that started this closes it, or dies
    }
    server.stop();
    beans.close();
  }

  private static RestfulServer restServer(ApplicationContext beans) {
    @SuppressWarnings("unchecked")
    IFhirSystemDao<Bundle, Meta> system = beans.getBean(IFhirSystemDao.class);
    RestfulServer rest = new RestfulServer(system.getContext());
    rest.registerProviders(beans.getBean(ResourceProviderFactory.class).createProviders());
    rest.registerProvider(beans.getBean(IJpaSystemProvider.class));
    rest.registerProvider(beans.getBean(BulkDataExportProvider.class));
    rest.setPagingProvider(beans.getBean(DatabaseBackedPagingProvider.class));
    rest.setServerConformanceProvider(new JpaCapabilityStatementProvider(
        rest, system, beans.getBean(JpaStorageSettings.class), beans.getBean(ISearchParamRegistry.class),
        beans.getBean(IValidationSupport.class)));
    rest.setDefaultResponseEncoding(EncodingEnum.JSON);
    if (Boolean.getBoolean("validate")) {
      RequestValidatingInterceptor validator = new RequestValidatingInterceptor();
      validator.setFailOnSeverity(ResultSeverityEnum.ERROR);
      validator.setValidatorModules(List.of(beans.getBean(IValidatorModule.class)));
      rest.registerInterceptor(validator);
    }
    return rest;
  }

  private static void serve(Server server, RestfulServer rest) throws Exception {
    ServletContextHandler web = new ServletContextHandler("/");
    web.addServlet(new ServletHolder(rest), "/fhir/*");
    StatisticsHandler counted = new StatisticsHandler(web);
    server.setHandler(new Handler.Sequence(new Counters(counted), counted));
    server.start();
  }

  /** A bulk export goes a step further at each maintenance, which HAPI's own scheduler makes minutes apart. */
  private static void keepJobsGoing(IJobMaintenanceService jobs) {
    Thread pulse = new Thread(() -> {
      while (true) {
        try {
          Thread.sleep(MAINTENANCE_MILLIS);
          jobs.runMaintenancePass();
        } catch (InterruptedException end) {
          return;
        } catch (RuntimeException problem) {
          System.err.println("maintenance of jobs: " + problem);
        }
      }
    });
    pulse.setDaemon(true);
    pulse.start();
  }
}
